"""Text for the tests: made here, the same each time."""

import functools
import random
import tempfile

from tiedbert.text.tokenizer import train_tokenizer

WORDS = (
    *("这本", "书", "很", "好看", "我", "喜欢", "酒店", "房间", "太", "小", "了"),
    *("服务", "不错", "电脑", "屏幕", "清楚", "快递", "慢", "价格", "便宜", "下次"),
    *("还", "来", "早餐", "一般", "作者", "写", "得", "真", "糟", "内容", "丰富"),
)
VOCAB_SIZE = 120


@functools.cache
def documents(count=300, seed=0):
    """Made-up reviews of 3 to 40 words, full-width punctuation between."""
    draw = random.Random(seed)
    return tuple(
        "，".join(
            "".join(draw.choices(WORDS, k=draw.randint(3, 8)))
            for _ in range(draw.randint(1, 5))
        )
        + "。"
        for _ in range(count)
    )


@functools.cache
def tokenizer():
    """One trained on `documents()`; its file is gone, its model is not."""
    with tempfile.TemporaryDirectory() as folder:
        return train_tokenizer(documents(), f"{folder}/t.model", VOCAB_SIZE)
