"""Texts on which tokenizers differ: scripts, combined characters, digits, blanks, and special tokens within text."""

HARD_TEXTS = (
    "",
    " ",
    "Hello, world!",
    " a leading blank, and one at the end ",
    "  two,   three,     five                      and many",
    "tabs\there\t\tand\t\t\tthere",
    "lines\nof\n\ntext\n\n\nwith\r\nothers\r\n\r\n \n \n  ends\n",
    "I'm, you'RE, they'll, it's; WE'VE d'accord 'tis",
    "0 12 345 6789 10111213 3.14159 -1,000,000 1e-7 ½ ² ٣ १२३ Ⅷ",
    'def f(x):\n    return x ** 2  # "why"\n\tif not x: pass;',
    "naïve café, Ünïcödé; ﬁ Ω Å \u0041\u030a e\u0301 \u1e9b\u0323",
    "漢字と仮名、한국어, 中文。 ไทย עברית العربية हिन्दी ქართული",
    "😀 👩🏽‍🔬 🇩🇪 \U0001f9ff\U00010348 \u200b\u00a0\u3000\ufeff\u2028",
    "\x00 \x07 \x1b[0m \x7f \u0085 \ufffd",
    "<pad><bos><eos> in <eos>text</s> <s> <unk> <mask>",
    "<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n",
    "<|endoftext|> <|im_start|>system<|im_end|><think>\n\n</think>",
    "<unused7><table><h1>x</h1> [multimodal] <0x0A> ▁ ▁▁ a▁b",
    "x" * 70 + "=" * 33 + "\n" * 35 + " " * 31 + "\t" * 33,
    "a" + " " * 40 + "b",
    "https://example.org/a_b?c=%20&d[]=1#e  CamelCaseWords snake_case_words",
)
# Of more blanks than make one token, SentencePiece takes as many as it can first; `transformers` merges pairs.
SENTENCEPIECE_TEXTS = tuple(text for text in HARD_TEXTS if " " * 32 not in text)
GREEDY = "The three primary colours are"
LONG_TEXT = (
    "A lighthouse keeper counted the ships that passed on Monday: twelve schooners, 7 barges and one grey steamer. "
    "In the evening she wrote their names on a slate, wiped it clean, and began again, for the wind had turned. "
    'Her brother asked: "Why keep a list that nobody reads?" She laughed, and answered that the sea reads it.\n\n'
)
REPEATED = 9  # times that make a text longer than the window of Gemma 3
