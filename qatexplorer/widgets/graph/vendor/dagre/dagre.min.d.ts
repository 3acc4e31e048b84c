// Ours, not dagre's: ../../layout.js imports the file as text.
declare const text: string;
export default text;
