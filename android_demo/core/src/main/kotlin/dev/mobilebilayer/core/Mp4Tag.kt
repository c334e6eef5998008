package dev.mobilebilayer.core

import java.io.ByteArrayOutputStream
import java.io.DataOutputStream
import java.io.File
import java.io.IOException
import java.io.RandomAccessFile

/** What every video says of itself, here and in what Python writes. */
const val AI_GENERATED = "AI-generated: a photo animated by mobile_bilayer"

/** A file whose index is larger is none of ours, in bytes. */
private const val LARGEST_INDEX = 64L shl 20

/**
 * Make [file], a finished MP4, say in its metadata what it is: its title, comment and description become [words].
 *
 * Android's muxer can't write them. The index (moov) is written anew behind all else, so that no frame moves; a former one before the
 * frames becomes free space. Raises [MobileBilayerError] for what is no MP4, which is left as it was.
 */
fun tagMp4(file: File, words: String = AI_GENERATED) {
    try {
        RandomAccessFile(file, "rw").use { tag(it, file.name, words) }
    } catch (error: IOException) {
        throw MobileBilayerError("${file.name} could not be tagged (${error.message}). Free some space, and record again.", error)
    }
}

/** A box of an MP4: where it lies, with its header of [header] bytes. */
private class Box(val type: String, val start: Long, val header: Int, val size: Long)

private fun tag(file: RandomAccessFile, name: String, words: String) {
    fun refused(why: String) = MobileBilayerError("$name is no whole MP4: $why. Record it again.")
    val boxes = boxes(file.length(), { refused(it) }) { at, into ->
        file.seek(at)
        file.readFully(into)
    }
    val indices = boxes.filter { it.type == "moov" }
    val moov = indices.singleOrNull() ?: throw refused("it has ${indices.size} indices (moov), not one")
    if (boxes[0].type != "ftyp") throw refused("it begins with '${boxes[0].type}'")
    if (moov.size > LARGEST_INDEX) throw refused("its index has ${moov.size} bytes")
    val old = ByteArray(moov.size.toInt())
    file.seek(moov.start)
    file.readFully(old)
    val inside = ByteArrayOutputStream()
    var user = ByteArray(0)
    for (part in parts(old, moov.header) { refused(it) }) {
        if (part.type != "udta") {
            inside.write(old, part.start.toInt(), part.size.toInt())
            continue
        }
        val udta = old.copyOfRange(part.start.toInt(), (part.start + part.size).toInt())
        for (kept in parts(udta, part.header) { refused(it) }) {
            if (kept.type != "meta") user += udta.copyOfRange(kept.start.toInt(), (kept.start + kept.size).toInt())
        }
    }
    inside.write(box("udta", user, metadata(words)))
    val new = box("moov", inside.toByteArray())
    val isLast = moov === boxes.last()
    file.seek(if (isLast) moov.start else file.length())
    file.write(new)
    if (isLast) {
        file.setLength(moov.start + new.size)
    } else {
        file.seek(moov.start + 4)
        file.write("free".toByteArray(Charsets.ISO_8859_1))
    }
}

/** As iTunes and FFmpeg have it: a list (ilst) of name, comment and description, each of text. */
private fun metadata(words: String): ByteArray {
    val text = words.toByteArray()
    val flags = ByteArray(4)
    val handler = box("hdlr", flags, ByteArray(4), "mdirappl".toByteArray(), ByteArray(9))
    val kindOfText = byteArrayOf(0, 0, 0, 1)
    val data = box("data", kindOfText, ByteArray(4), text)
    return box("meta", flags, handler, box("ilst", box("\u00a9nam", data), box("\u00a9cmt", data), box("desc", data)))
}

private fun box(type: String, vararg parts: ByteArray): ByteArray {
    val out = ByteArrayOutputStream()
    DataOutputStream(out).run {
        writeInt(8 + parts.sumOf { it.size })
        write(type.toByteArray(Charsets.ISO_8859_1))
        parts.forEach(::write)
    }
    return out.toByteArray()
}

private fun parts(box: ByteArray, header: Int, refused: (String) -> MobileBilayerError): List<Box> =
    boxes(box.size.toLong(), refused, header.toLong()) { at, into -> System.arraycopy(box, at.toInt(), into, 0, into.size) }

/** The boxes one behind another up to [end]; [read] fills an array from a place. */
private fun boxes(end: Long, refused: (String) -> MobileBilayerError, begin: Long = 0, read: (Long, ByteArray) -> Unit): List<Box> {
    val found = ArrayList<Box>()
    var at = begin
    while (at < end) {
        if (end - at < 8) throw refused("${end - at} bytes are left over at $at")
        val head = ByteArray(minOf(16L, end - at).toInt()).also { read(at, it) }
        fun number(from: Int, count: Int) = (from until from + count).fold(0L) { sum, i -> sum shl 8 or (head[i].toLong() and 255) }
        val type = String(head, 4, 4, Charsets.ISO_8859_1)
        var header = 8
        var size = number(0, 4)
        if (size == 1L && end - at >= 16) { // a large one says so behind its type
            header = 16
            size = number(8, 8)
        }
        if (size == 0L) size = end - at // up to the end
        if (size < header || size > end - at) throw refused("'$type' at $at has $size of ${end - at} bytes")
        found += Box(type, at, header, size)
        at += size
    }
    return found
}
