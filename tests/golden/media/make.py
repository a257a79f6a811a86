"""Makes the files of this folder; needs the ffmpeg program (5.1) and Pillow. Usage: python3 make.py"""
import os
import struct
import subprocess
import zlib
from pathlib import Path

from PIL import Image, ImageDraw, PngImagePlugin

os.chdir(Path(__file__).resolve().parent)
RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 180, 30), (30, 30, 220), (230, 220, 40)
X264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-threads", "1"]
SHAPES = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=3"]
TONE = ["-f", "lavfi", "-i", "sine=d=3"]


def ffmpeg(*arguments):
    subprocess.run(["ffmpeg", "-nostdin", "-y", "-v", "error", "-bitexact", *map(str, arguments)], check=True)


def quarters(width, height):
    picture = Image.new("RGB", (width, height), RED)
    draw = ImageDraw.Draw(picture)
    draw.rectangle([width // 2, 0, width - 1, height // 2 - 1], fill=GREEN)
    draw.rectangle([0, height // 2, width // 2 - 1, height - 1], fill=BLUE)
    draw.rectangle([width // 2, height // 2, width - 1, height - 1], fill=YELLOW)
    return picture


def size_changes():
    for kind, codec in (("webm", ["-c:v", "libvpx", "-b:v", "300k", "-deadline", "good"]), ("ts", [*X264, "-bf", "0"])):
        for name, colour, size in (("a", "red", "96x64"), ("b", "blue", "48x32")):
            ffmpeg("-f", "lavfi", "-i", f"color={colour}:s={size}:r=10:d=0.5", *codec, f"{name}.{kind}")
    Path("list.txt").write_text("file a.webm\nfile b.webm\n")
    ffmpeg("-f", "concat", "-i", "list.txt", "-c", "copy", "size_change.webm")
    Path("size_change.ts").write_bytes(Path("a.ts").read_bytes() + Path("b.ts").read_bytes())
    for name in ("a.webm", "b.webm", "a.ts", "b.ts", "list.txt"):
        os.remove(name)


def colours():
    quarters(64, 64).save("q.png")
    one = ["-frames:v", "1", "-c:v", "libx264", "-crf", "4"]
    for name, matrix, pixels, levels in (("bt709.mp4", "bt709", "yuv420p", "tv"), ("bt601.mp4", "smpte170m", "yuv420p", "tv"),
                                         ("bt2020.mp4", "bt2020nc", "yuv420p10le", "tv"), ("full_range.mp4", "bt709", "yuv444p", "pc")):
        to = {"smpte170m": "bt601", "bt2020nc": "bt2020"}.get(matrix, matrix)
        ffmpeg("-i", "q.png", "-vf", f"scale=out_color_matrix={to}:out_range={levels},format={pixels}", *one,
               "-colorspace", matrix, "-color_range", levels, name)
    ffmpeg("-i", "q.png", "-vf", "scale=32:64,setsar=2/1", *one, "-pix_fmt", "yuv420p", "wide_pixels.mp4")
    ffmpeg("-i", "q.png", "-vf", "format=argb,geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='255*lt(X,32)'", "-frames:v", "1", "-c:v", "qtrle", "alpha.mov")
    os.remove("q.png")


def containers():
    ffmpeg(*SHAPES, *X264, "-g", "10", "whole.mkv")
    ffmpeg(*SHAPES, *X264, "-g", "10", "-bf", "0", "whole.ts")
    ffmpeg(*SHAPES, *X264, "-g", "10", "-movflags", "faststart", "whole.mp4")
    ffmpeg(*SHAPES, *X264, "-g", "10", "whole.flv")
    ffmpeg(*SHAPES, "-c:v", "mpeg4", "-q:v", "6", "-g", "10", "whole.avi")
    ffmpeg(*SHAPES, "-r", "25", "-c:v", "mpeg2video", "-q:v", "8", "-f", "vob", "whole.mpg")
    ffmpeg(*SHAPES, "-c:v", "libvpx", "-b:v", "200k", "-deadline", "good", "whole.webm")
    ffmpeg(*SHAPES, "-c:v", "gif", "whole.gif")
    ffmpeg(*SHAPES, *TONE, *X264, "-c:a", "aac", "-b:a", "16k", "sound.mkv")


def times():
    ffmpeg("-ss", "0.75", "-t", "1.2", "-i", "whole.mp4", "-c", "copy", "trimmed.mp4")
    ffmpeg(*SHAPES, "-vf", "select='not(mod(n,5))+lt(n,10)'", "-fps_mode", "vfr", *X264, "varying.mkv")


def songs():
    quarters(32, 32).save("cover.png")
    ffmpeg(*TONE, "-i", "cover.png", "-map", "0", "-map", "1", "-t", "1", "-c:a", "aac", "-b:a", "16k", "-c:v", "mjpeg", "-disposition:v", "attached_pic", "song.mp4")
    os.remove("cover.png")


def turned():
    """Stored turned left, so that orientation 6 (turn right) makes them upright."""
    stored = quarters(48, 32).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save("turned.png", exif=exif)
    stored.save("turned.webp", lossless=True, exif=exif)
    stored.save("turned.jpg", quality=95, subsampling=0, exif=exif)
    stored.save("turned.tiff", tiffinfo={0x0112: 6}, compression="tiff_lzw")
    about = PngImagePlugin.PngInfo()
    about.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>')
    stored.save("turned_by_xmp.png", pnginfo=about)


def png(name, colour, depth, rows, transparent):
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    width = len(rows[0]) * 8 // (depth * {0: 1, 2: 3}[colour])
    Path(name).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0))
                           + chunk(b"tRNS", transparent) + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
                           + chunk(b"IEND", b""))


def clear():
    """The left half is clear, the right half is grey 192 (2 bits: 170) or (192, 192, 192)."""
    png("clear_grey.png", 0, 8, [bytes([32] * 8 + [192] * 8)] * 8, struct.pack(">H", 32))
    png("clear_grey16.png", 0, 16, [struct.pack(">16H", *[32 * 257 + 1] * 8, *[192 * 257] * 8)] * 8, struct.pack(">H", 32 * 257 + 1))
    png("clear_grey2.png", 0, 2, [bytes([0b01010101] * 2 + [0b10101010] * 2)] * 8, struct.pack(">H", 1))
    png("clear_rgb.png", 2, 8, [bytes([32] * 24 + [192] * 24)] * 8, struct.pack(">HHH", 32, 32, 32))
    half = Image.new("RGBA", (16, 8), (9, 9, 9, 0))
    half.paste((192, 192, 192, 255), (8, 0, 16, 8))
    half.save("clear.webp", lossless=True, exact=True)
    half.save("clear.tiff")
    half.quantize(4).save("clear_palette.png")


def kinds():
    picture = quarters(48, 32)
    for name, options in (("plain.bmp", {}), ("plain.ppm", {}), ("plain.jp2", {"irreversible": False}), ("plain.gif", {}), ("plain.webp", {"quality": 95}),
                          ("plain.jpg", {"quality": 95, "subsampling": 0}), ("progressive.jpg", {"quality": 95, "subsampling": 0, "progressive": True})):
        picture.save(name, **options)
    picture.convert("CMYK").save("cmyk.jpg", quality=95)
    picture.convert("L").convert("F").point(lambda value: value * (1 / 255) + 0).save("float.tiff")
    frames = [picture, Image.new("RGB", picture.size, (0, 0, 0))]
    for name, options in (("animated.webp", {"lossless": True}), ("animated.gif", {}), ("animated.png", {})):
        frames[0].save(name, save_all=True, append_images=frames[1:], duration=100, **options)
    noise = Image.effect_noise((64, 48), 60).convert("RGB")
    noise.save("noise.jpg", quality=85)
    noise.save("noise_progressive.jpg", quality=85, progressive=True)
    noise.resize((32, 24)).save("noise.png")


turned()
clear()
kinds()
size_changes()
colours()
containers()
times()
songs()
