package dev.mobilebilayer.demo

import android.content.Context
import android.net.Uri
import dev.mobilebilayer.core.Avatar
import dev.mobilebilayer.core.MobileBilayerError
import dev.mobilebilayer.core.SMALLEST_FACE_PX
import dev.mobilebilayer.core.faceSize
import dev.mobilebilayer.core.turnOf
import java.io.ByteArrayOutputStream
import java.io.File
import java.text.SimpleDateFormat
import java.util.Date
import java.util.Locale

/**
 * The avatars there are: those that came with the app, and those made or opened here. By name. [load], [make] and [import] take long:
 * not for the main thread.
 */
object Avatars {
    /** The one that the app begins with. */
    const val FIRST = "astronaut"

    private const val SUFFIX = ".avatar"
    private const val LARGEST = 16L shl 20 // bytes; ours have 1.5 million

    fun names(context: Context): List<String> {
        val bundled = (context.assets.list("portraits") ?: emptyArray()).filter { it.endsWith(SUFFIX) }
        val own = (folder(context).list() ?: emptyArray()).filter { it.endsWith(SUFFIX) }.sortedDescending()
        return (own + bundled).map { it.removeSuffix(SUFFIX) }.distinct()
    }

    /** Whether it was made or opened here, and may be deleted. */
    fun isOwn(context: Context, name: String) = file(context, name).isFile

    /** The one to drive. */
    fun current(context: Context): String = prefs(context).getString("current", null)?.takeIf { it in names(context) } ?: FIRST

    fun choose(context: Context, name: String) = prefs(context).edit().putString("current", name).apply()

    fun content(context: Context, name: String): ByteArray {
        val own = file(context, name)
        return (if (own.isFile) own.readBytes() else asset(context, "portraits/$name$SUFFIX"))
            ?: throw MobileBilayerError(context.getString(R.string.avatar_missing, name))
    }

    /** Raises [MobileBilayerError] if it was made for another student. */
    fun load(context: Context, name: String): Avatar =
        Avatar.load(content(context, name), "$name$SUFFIX", Models.choice(context).bundle)

    /** Of a face in a photo; returns its name. */
    fun make(context: Context, photo: Uri): String {
        val bitmap = readPhoto(context, photo)
        val landmarks = FaceTracker.find(context, bitmap) ?: throw MobileBilayerError(context.getString(R.string.photo_without_face))
        if (turnOf(landmarks) != 0) throw MobileBilayerError(context.getString(R.string.photo_turned))
        if (faceSize(landmarks) < SMALLEST_FACE_PX) {
            throw MobileBilayerError(context.getString(R.string.photo_too_small, faceSize(landmarks), SMALLEST_FACE_PX))
        }
        val avatar = Models.network(context).use { Models.choice(context).bundle.avatar(rgbOf(bitmap), landmarks, it) }
        return keep(context, newName("photo"), avatar.save())
    }

    /** A .avatar file, checked; returns its name. */
    fun import(context: Context, from: Uri): String {
        val content = read(context, from)
        Avatar.load(content, "The file", Models.choice(context).bundle)
        return keep(context, newName("file"), content)
    }

    fun export(context: Context, name: String, to: Uri) {
        val stream = context.contentResolver.openOutputStream(to)
            ?: throw MobileBilayerError(context.getString(R.string.file_unreadable, to.lastPathSegment))
        stream.use { it.write(content(context, name)) }
    }

    /** A copy that another app may be given. */
    fun shared(context: Context, name: String): File =
        File(context.cacheDir, "shared/$name$SUFFIX").also { replaceFile(context, it, content(context, name)) }

    fun delete(context: Context, name: String) {
        file(context, name).delete()
    }

    private fun read(context: Context, from: Uri): ByteArray {
        val stream = context.contentResolver.openInputStream(from)
            ?: throw MobileBilayerError(context.getString(R.string.file_unreadable, from.lastPathSegment))
        val content = ByteArrayOutputStream()
        stream.use {
            val part = ByteArray(1 shl 16)
            while (true) {
                val count = it.read(part)
                if (count < 0) return content.toByteArray()
                content.write(part, 0, count)
                if (content.size() > LARGEST) {
                    throw MobileBilayerError(context.getString(R.string.avatar_too_large, LARGEST shr 20))
                }
            }
        }
    }

    private fun keep(context: Context, name: String, content: ByteArray): String {
        replaceFile(context, file(context, name), content)
        choose(context, name)
        return name
    }

    private fun newName(kind: String) = kind + SimpleDateFormat(" yyyy-MM-dd HH.mm.ss", Locale.ROOT).format(Date())

    private fun folder(context: Context) = File(context.filesDir, "avatars")

    private fun file(context: Context, name: String) = File(folder(context), name + SUFFIX)

    private fun prefs(context: Context) = context.getSharedPreferences("avatars", Context.MODE_PRIVATE)
}
