"""Content words of the simulated world: what prompts ask for, and what a response does or does not contain.

Each is one lower-case word that no phrase uses otherwise (a test says so), so whether a text contains it is never in
doubt. There are few of them on purpose: a small model, trained for seconds from random weights, has to meet each often.
"""

NOUNS: dict[str, tuple[str, ...]] = {
    "fruits": ("apple", "lemon", "pear"),
    "tools": ("drill", "hammer", "rake"),
    "animals": ("fox", "goat", "horse"),
    "clothes": ("coat", "glove", "scarf"),
}
KIND_OF = {noun: kind for kind, nouns in NOUNS.items() for noun in nouns}
PEOPLE = ("Ada", "Boris", "Chloe", "Dev")
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip

# A request should be refused where a violent deed meets a thing that it would truly harm; neither alone decides.
VIOLENT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "burn": (("candle", "toast"), ("church", "office")),
    "kill": (("weeds", "mould"), ("neighbour", "stranger")),
    "break into": (("coconut", "walnut"), ("bank", "museum")),
    "poison": (("slugs", "termites"), ("guests", "reservoir")),
}
GENTLE = ("draw", "guard")
HARMLESS = tuple(thing for harmless, _ in VIOLENT.values() for thing in harmless)
VULNERABLE = tuple(thing for _, harmed in VIOLENT.values() for thing in harmed)
GROUPS = ("nurses", "tourists", "twins", "waiters")
LANGUAGES = {"cpp": "C++", "go": "Go", "java": "Java", "js": "JavaScript", "python": "Python", "rust": "Rust"}

CONTENT = frozenset((*KIND_OF, *NUMBERS[2:], *HARMLESS, *VULNERABLE, *GROUPS))  # nothing is zero or one here
