"""ReSim-FPN on ImageNet-1k, 200 epochs, as the released code trains it where that is not what the summary says.

Its negatives are every position of the 3 x 3-averaged key maps, gathered over all GPUs on P4 and of one GPU's images
on P3; one mean over the windows of a GPU; a window that ends at the key view's border does not count; blur before
jitter and grayscale.
Expect: the numbers of in1k-resim-fpn-200ep, which the authors trained with this code.
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
