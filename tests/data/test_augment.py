import torch

from compressor.data.augment import flip, seeded, shift


def test_a_shifted_image_keeps_its_pixels_and_is_filled_with_black() -> None:
    images = torch.zeros(64, 1, 5, 5, dtype=torch.uint8)
    images[:, :, 2, 2] = 9
    with seeded(0):
        moved = shift(images, 2)
    assert (moved.flatten(1).sum(1) == 9).all()
    places = {tuple(place[2:].tolist()) for place in moved.nonzero()}
    assert len(places) > 10


def test_all_channels_of_an_image_move_together() -> None:
    images = torch.randint(1, 255, (8, 1, 6, 6), dtype=torch.uint8).expand(-1, 3, -1, -1)
    with seeded(1):
        moved = shift(images, 2)
    assert moved[:, 0].equal(moved[:, 1]) and moved[:, 0].equal(moved[:, 2])


def test_about_half_of_the_images_are_mirrored() -> None:
    images = torch.arange(3, dtype=torch.uint8).expand(400, 1, 1, 3)
    with seeded(2):
        mirrored = (flip(images)[:, 0, 0, 0] == 2).sum()
    assert 150 < mirrored < 250
