package dev.mobilebilayer.core

/** An upright picture: [pixels] are R, G, B of each pixel, row by row, as unsigned bytes. */
class RgbImage(val width: Int, val height: Int, val pixels: ByteArray = ByteArray(3 * width * height)) {
    init {
        if (width < 1 || height < 1 || pixels.size != 3 * width * height) {
            throw MobileBilayerError(
                "A picture of ${width}x$height pixels was made of ${pixels.size} bytes; it needs three a pixel, and a pixel at least.",
            )
        }
    }
}
