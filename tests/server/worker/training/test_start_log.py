from __future__ import annotations

from manyview_server.learn import backbones
from manyview_server.worker.training.start_log import backbone_line


def test_one_line_says_what_is_trained() -> None:
    network = backbones.build("resnet9", width=0.125, image_size=16)
    assert backbone_line("resnet9", network) == "backbone resnet9, stem small: 64 features, 77,352 parameters"
