"""Texts on which a tokenizer and its GGUF must agree: each line breaks at least one wrong pre-tokenizer."""

from __future__ import annotations

from convert.pretokenizers import PROBE_TEXT

PROBE_TEXTS: tuple[str, ...] = (
    PROBE_TEXT,
    "Hello world",
    " leading space,  two spaces,\ttab,\r\nline end  ",
    "\n\n\n   \n indented\n",
    "I'll, you've, WE'RE, don't, O'Neill's",
    "1 12 123 1234 12345 3.14159 1,000,000 0x1F 2026-11-21T05:00:00Z",
    "snake_case camelCase kebab-case path/to/file.py https://example.org/?q=a&b=%20",
    "def f(x: int) -> int:\n    return x**2  # comment\n",
    '{"name": "get_weather", "arguments": {"city": "Zürich", "days": [1, 2], "ok": true, "none": null}}',
    '<tool_call>\n{"name": "a", "arguments": {}}\n</tool_call>',
    "<think>\nHm.\n</think>\n\nDone.",
    "Größe, naïve, façade, Ångström, Cafe\u0301",
    "हिन्दी में एक वाक्य। தமிழ் வாக்கியம். ประโยคภาษาไทย",
    "العربية والأرقام ١٢٣؛ עברית",
    "中文句子,没有空格。日本語のテキスト、カタカナ。한국어 문장",
    "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 \u200b zero width \ufeff",
    "∑∫√ ≤ ≥ × ÷ ½ ² ³ Ⅳ",
    "!!!???...---___***///\\\\\\|||",
)
