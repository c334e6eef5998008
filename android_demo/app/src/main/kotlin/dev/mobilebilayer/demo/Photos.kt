package dev.mobilebilayer.demo

import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Matrix
import android.media.ExifInterface
import android.net.Uri
import dev.mobilebilayer.core.MobileBilayerError
import dev.mobilebilayer.core.RgbImage
import java.io.File
import java.io.IOException

private const val LARGEST_PX = 2048 // a face in it is large enough for 256 pixels, and memory is not

/**
 * The photo at [uri], upright, as a bitmap of 8 bits a colour. Not for the main thread.
 *
 * Raises [MobileBilayerError] for what is no picture.
 */
fun readPhoto(context: Context, uri: Uri): Bitmap {
    // Copied, as it is read twice and a picker's stream may be read once: for its size, and for its pixels.
    val copy = File.createTempFile("photo", null, context.cacheDir)
    try {
        val from = context.contentResolver.openInputStream(uri) ?: throw MobileBilayerError(context.getString(R.string.photo_unreadable))
        from.use { copy.outputStream().use(it::copyTo) }
        val size = BitmapFactory.Options().apply { inJustDecodeBounds = true }
        BitmapFactory.decodeFile(copy.path, size)
        val options = BitmapFactory.Options().apply {
            inPreferredConfig = Bitmap.Config.ARGB_8888
            inSampleSize = 1
            while (maxOf(size.outWidth, size.outHeight) / inSampleSize > LARGEST_PX) inSampleSize *= 2
        }
        val stored = BitmapFactory.decodeFile(copy.path, options) ?: throw MobileBilayerError(context.getString(R.string.photo_unreadable))
        val turn = upright(ExifInterface(copy.path).getAttributeInt(ExifInterface.TAG_ORIENTATION, 1))
        return Bitmap.createBitmap(stored, 0, 0, stored.width, stored.height, turn, true)
    } catch (error: IOException) {
        throw MobileBilayerError(context.getString(R.string.photo_unreadable), error)
    } catch (error: SecurityException) { // who gave the photo took it back
        throw MobileBilayerError(context.getString(R.string.photo_unreadable), error)
    } finally {
        copy.delete()
    }
}

/** What makes a picture with such an EXIF orientation (1 to 8) upright. */
private fun upright(orientation: Int) = Matrix().apply {
    when (orientation) {
        2, 4, 5, 7 -> postScale(-1f, 1f)
    }
    when (orientation) {
        3, 4 -> postRotate(180f)
        6, 7 -> postRotate(90f)
        5, 8 -> postRotate(270f)
    }
}

/** As core has pictures. */
fun rgbOf(bitmap: Bitmap): RgbImage {
    val row = IntArray(bitmap.width)
    val out = RgbImage(bitmap.width, bitmap.height)
    var at = 0
    for (y in 0 until bitmap.height) {
        bitmap.getPixels(row, 0, bitmap.width, 0, y, bitmap.width, 1)
        for (pixel in row) {
            out.pixels[at++] = (pixel shr 16).toByte()
            out.pixels[at++] = (pixel shr 8).toByte()
            out.pixels[at++] = pixel.toByte()
        }
    }
    return out
}
