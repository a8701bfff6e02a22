"""The steps that made a view, in words."""

from manyview._results.view_captions import steps


def test_each_step_is_put_into_words_in_its_order() -> None:
    everything = {
        "crop": {"top": 1, "left": 2, "height": 30, "width": 40},
        "horizontal_flip": True,
        "vertical_flip": True,
        "quarter_turn": {"degrees": 90},
        "rotation": {"degrees": -12.4},
        "color_jitter": {"order": ["hue", "contrast"], "hue": -0.03, "contrast": 1.5},
        "grayscale": True,
        "blur": {"sigma": 1.26},
        "solarize": {"threshold": 128.0},
        "custom": {"posterize": {"numbers": [0.5]}},
        "hidden_patches": {"patch_size": 8, "patches": [3, 4]},
    }
    assert list(steps(everything)) == [
        "crop 40x30 at 2,1",
        "flip",
        "upside down",
        "turned 90°",
        "turned -12°",
        "hue -0.03",
        "contrast x1.50",
        "grayscale",
        "blur 1.3",
        "solarize",
        "posterize",
        "2 patches hidden",
    ]
