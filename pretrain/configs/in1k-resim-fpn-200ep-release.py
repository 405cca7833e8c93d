"""ReSim-FPN on ImageNet-1k, 200 epochs, as the released code trains it where that is not what the summary says.

Its negatives are every position of the 3 x 3-averaged key maps, gathered over all GPUs on P4 and of one GPU's images
on P3; one mean over the windows of a GPU; a window that ends at the key view's border does not count; blur before
jitter and grayscale.
Expect, after voc-full: 59.2 / 82.9 / 65.9 (AP / AP50 / AP75); after coco-1x: 39.5 box, 35.8 mask; coco-2x: 41.4, 37.5;
with the pyramid's weights, after coco-1x-fpn-t: 39.8 box, 36.0 mask; coco-2x-fpn-t: 41.4, 37.5.
Run: resim-bench pretrain in1k-resim-fpn-200ep-release
"""

_base_ = "in1k-resim-fpn-200ep.py"
model = dict(
    levels=dict(
        p4=dict(negatives="dense", reduction="group", border="open"),
        p3=dict(negatives="dense-group", reduction="group", border="open"),
    )
)
views = dict(photometric=("blur", "jitter", "grayscale"))
