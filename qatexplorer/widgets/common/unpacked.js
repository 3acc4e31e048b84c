/** Plain data that Python may have sent as the bytes of its JSON (see packed.py). */
function unpacked(value) {
  return ArrayBuffer.isView(value) ? JSON.parse(new TextDecoder().decode(value)) : value;
}
