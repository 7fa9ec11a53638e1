"""The prompt format of the miniature worlds: word-level tokens, a control token for each turn."""

from __future__ import annotations

from kit.lm.chat import ChatFormat, Special, Text
from kit.lm.formats import register_format

MINI = register_format(
    ChatFormat(
        name="mini",
        begin=(Special("<s>"),),
        instruction=(Special("[INST]"), Text("{content}")),
        data=(Special("[DATA]"), Text("{content}")),
        generate=(Special("[RESP]"),),
        response=(Text("{content}"),),
        end=(Special("</s>"),),
        stop=("</s>",),
        pad="<pad>",
    )
)
