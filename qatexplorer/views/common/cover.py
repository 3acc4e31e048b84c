"""What lies over tree, graph and inspector while there is nothing to show in them."""

from __future__ import annotations

from qatexplorer.views.common.html import Html, code, tag
from qatexplorer.views.common.story import message_html


def loading_html() -> Html:
    """Before the first picture of a model."""
    return tag("div", tag("p", "Drawing the model …"), class_="qx-cover-box qx-cover-loading")


def failed_html(error: Exception) -> Html:
    """Where making the picture of a stage raised ``error``."""
    return tag(
        "div",
        tag("h2", "This stage cannot be drawn"),
        Html(message_html(error)),
        tag("p", "The session goes on without the picture; another stage can be chosen above."),
        class_="qx-cover-box",
    )


def no_model_html() -> Html:
    """Where no session could be made; what is wrong with the input is said above."""
    return tag(
        "div",
        tag("h2", "No model is open"),
        tag("p", "The message above says what is in the way. The explorer needs:"),
        tag(
            "ul",
            tag("li", "a model: an instance of ", code("torch.nn.Module"), " in float32, and"),
            tag("li", "example inputs: a tensor, tuple or dict that its forward takes."),
        ),
        tag("p", code("qx.explore(model, example_inputs, data=…)")),
        class_="qx-cover-box",
    )
