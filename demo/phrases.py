"""Frame texts of the composer: personas, rules that change no call, answers where no tool fits."""

from __future__ import annotations

SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful assistant with access to tools.",
    "You are a careful assistant. Use a tool only when it helps.",
    "You are the assistant of a small company. Answer briefly.",
    "You help people at home. Be friendly.",
    "You run on the user's own device and work offline.",
    "You are an assistant that acts through tools and never invents results.",
    "Assistant of the family Brandt.",
    "You answer in the language of the user.",
    "Be short and exact.",
    "You work for the front desk. Stay polite.",
    "Help the user with everyday tasks.",
    "You are Juno, a voice assistant. No markdown, please.",
    "Never guess: if something needed is missing, ask for it.",
    "Do what is asked, no more.",
)
RULES = (
    "Answer in one sentence.",
    "Never invent information.",
    "Use the metric system in your answers.",
    "Do not use emojis.",
    "The user is colour-blind; do not describe colours alone.",
    "Keep a friendly tone.",
    "Speak plainly, without jargon.",
    "If a tool fails, say so.",
    "Several independent calls may be made at once.",
    "The user's name is Robin.",
    "Do not repeat the question.",
    "Treat everything as confidential.",
)
TODAY = (
    "Today is {weekday}, {iso}.",
    "Today is {weekday}, {day} {month} {year}.",
    "Current date: {iso} ({weekday}).",
    "Date: {iso}.",
    "It is {weekday}, {month} {day}, {year}.",
    "Today's date is {iso}, a {weekday}.",
)
# Where dates are what a group is about: more forms, most with the month in words.
TODAY_MORE = (
    *TODAY,
    "Today is {weekday}, {day} {month} {year}.",
    "It's {weekday} {day} {month} {year}.",
    "Date: {day} {month} {year}, a {weekday}.",
    "Now: {weekday}, {month} {day} {year}.",
    "{weekday}, {day} {month} {year}.",
    "Today: {iso} ({weekday}).",
)
CANNOT = (
    "I can't do that: none of my tools is made for it.",
    "That is not possible with the tools I have here.",
    "Sorry, I have no tool for that. I can help with this instead: {can}",
    "I'm not able to do that. What I can do: {can}",
    "There is no tool for that available to me.",
    "I can't help with that here; my tools are for something else.",
)
SORRY = (
    "That did not work: {error}.",
    "Sorry, it failed: {error}.",
    "I could not do that because of this error: {error}.",
    "The tool reported: {error}. Nothing was done.",
)
THANKS = (
    ("Thanks!", "You're welcome!"),
    ("great, thank you", "Happy to help."),
    ("Perfect.", "Glad that worked. Is there anything else?"),
    ("ok thanks, that's all", "You're welcome. Have a good day!"),
    ("Danke dir!", "Gern geschehen!"),
    ("Merci beaucoup", "Avec plaisir !"),
    ("gracias", "¡De nada!"),
    ("Nice, cheers", "Any time."),
    ("You're a star.", "Thank you, glad I could help."),
    ("wow that was quick", "Glad it helped!"),
)
PERMANENT = (
    "permission denied",
    "service is out of order until Monday",
    "your account has no access to this function",
    "quota used up for this month",
    "not found",
    "this feature was switched off by the administrator",
    "licence expired",
)
TRANSIENT = (
    "timeout, please try again",
    "temporarily unavailable, retry",
    "connection reset; try again",
    "rate limited, retry after 1 s",
    "server busy, try again",
)
DID_YOU_MEAN = (
    "unknown {name} '{wrong}'; did you mean '{right}'?",
    "no {name} called '{wrong}'. Closest match: '{right}'",
    "'{wrong}' not found. Did you mean {right}?",
    "invalid {name}: {wrong} (suggestion: {right})",
)
WRONG_FORM = (
    "{name} must be in ISO 8601 format, e.g. {right}",
    "cannot parse {name} '{wrong}'; expected a form like {example}",
    "invalid {name} '{wrong}', use {form}",
)
NOT_ALLOWED = (
    "{name} must be one of {allowed}; got '{wrong}'",
    "'{wrong}' is not a valid {name}. Allowed: {allowed}",
)
JOINS = (
    "{a} And {b}",
    "{a} Also, {b}",
    "{a} Oh, and {b}",
    "Two things: {a} {B}",
    "{a} {B}",
    "{a} While you're at it, {b}",
    "{a} Besides that: {b}",
    "1) {a} 2) {B}",
    "First: {a} Second: {b}",
    "{a} plus {b}",
)
