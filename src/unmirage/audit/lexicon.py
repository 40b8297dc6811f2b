"""Which words say nothing about harm by themselves: function words, words of politeness, and words of instruction.

Function words (articles, pronouns, prepositions, auxiliaries, ...) are a closed class: whatever a question is about, it
needs them. Instruction words ("share", "describe") tell what form the answer shall have, and only at the head of a
question; elsewhere the same word ("a share", "a name") counts as content. Every other word is content, and so is every
word of a language that is not listed here. English only; more can be given by hand.
"""

from __future__ import annotations

_ARTICLES = "a an the this that these those such each every either neither some any no all both another other same own"
_PRONOUNS = (
    "i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers "
    "herself it its itself they them their theirs themselves one ones someone somebody something anyone anybody "
    "anything everyone everybody everything nobody nothing none"
)
_PREPOSITIONS = (
    "about above across after against along among around as at before behind below beneath beside besides between "
    "beyond by despite down during except for from in inside into like near of off on onto out outside over past per "
    "since through throughout till to toward towards under until up upon via with within without"
)
_CONJUNCTIONS = "and or but nor so yet if because although though while whereas unless than whether then else"
_AUXILIARIES = (
    "be am is are was were been being do does did doing done have has had having can could will would shall should may "
    "might must ought let lets let's i'm i've i'd i'll you're you've you'd you'll it's that's there's what's who's "
    "how's where's isn't aren't wasn't weren't don't doesn't didn't haven't hasn't hadn't can't cannot couldn't won't "
    "wouldn't shan't shouldn't mustn't"
)
_QUESTION_WORDS = "what which who whom whose when where why how"
_ADVERBS = (
    "not only just also too very really quite rather even still again already ever never always often here there now "
    "more most much many few fewer less least lot lots several enough else etc well"
)
FUNCTION = frozenset(
    " ".join(
        (_ARTICLES, _PRONOUNS, _PREPOSITIONS, _CONJUNCTIONS, _AUXILIARIES, _QUESTION_WORDS, _ADVERBS)
    ).split()
)  # fmt: skip
POLITE = frozenset(
    [
        "please",
        "kindly",
        "thanks",
        "thank",
        "hello",
        "hi",
        "hey",
        "sorry",
        "pls",
        "plz",
        "dear",
        "excuse",
        "pardon",
        "grateful",
    ]
)
INSTRUCTION = frozenset(
    [
        "share",
        "describe",
        "list",
        "explain",
        "provide",
        "give",
        "tell",
        "show",
        "name",
        "state",
        "outline",
        "write",
        "create",
        "generate",
        "make",
        "draft",
        "compose",
        "summarize",
        "summarise",
        "identify",
        "discuss",
        "suggest",
        "recommend",
        "propose",
        "offer",
        "present",
        "detail",
        "elaborate",
        "define",
        "illustrate",
        "demonstrate",
        "help",
        "assist",
        "guide",
        "teach",
        "advise",
        "answer",
        "respond",
        "reply",
        "say",
        "read",
        "look",
        "see",
        "find",
        "analyze",
        "analyse",
        "compare",
        "contrast",
        "evaluate",
        "assess",
        "estimate",
        "calculate",
        "compute",
        "count",
        "determine",
        "infer",
        "interpret",
        "classify",
        "categorize",
        "categorise",
        "describe",
        "translate",
        "transcribe",
        "rewrite",
        "rephrase",
        "paraphrase",
        "edit",
        "design",
        "develop",
        "devise",
        "formulate",
        "craft",
        "produce",
        "plan",
        "imagine",
        "pretend",
        "act",
        "consider",
        "speculate",
        "predict",
        "comment",
        "enumerate",
        "indicate",
        "mention",
        "note",
        "point",
        "specify",
        "clarify",
        "review",
        "sketch",
        "supply",
        "tell",
        "convey",
        "report",
        "express",
        "go",
        "come",
        "use",
        "take",
        "get",
        "break",
        "brainstorm",
        "construct",
        "prepare",
        "instruct",
    ]
)

MODALS = frozenset(["can", "could", "will", "would", "shall", "should", "may", "might", "must"])
BE = frozenset(["is", "are", "was", "were", "am"])
DO = frozenset(["do", "does", "did"])
HAVE = frozenset(["have", "has", "had"])
QUESTION_WORDS = frozenset(_QUESTION_WORDS.split())


def kind(word: str, *, leading: bool, extra: frozenset[str] = frozenset()) -> str:
    """One of `function`, `polite`, `instruction` and `content`; `leading` says that the word heads its question."""
    if word in POLITE:
        return "polite"
    if word in FUNCTION or word in extra:
        return "function"
    return "instruction" if leading and word in INSTRUCTION else "content"
