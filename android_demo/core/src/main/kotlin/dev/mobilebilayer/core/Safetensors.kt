package dev.mobilebilayer.core

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** A safetensors file in memory: named tensors and a few words. */
class Safetensors(val tensors: Map<String, Tensor>, val metadata: Map<String, String> = emptyMap()) {
    /** The tensor [name], which must be of this type and shape; [where] and [remedy] are for the error. */
    fun tensor(name: String, dtype: DType, shape: IntArray, where: String, remedy: String): Tensor {
        val found = tensors[name]
        if (found == null || found.dtype != dtype || !found.shape.contentEquals(shape)) {
            val got = found?.let { "${it.shape.text()} ${it.dtype}" } ?: "missing"
            throw MobileBilayerError("$where: $name is $got; it must be ${shape.text()} $dtype. $remedy")
        }
        return found
    }

    /** As a file's bytes, tensors in the map's order. F16 is not written. */
    fun save(): ByteArray {
        val header = LinkedHashMap<String, Any?>()
        if (metadata.isNotEmpty()) header["__metadata__"] = metadata
        var end = 0
        for ((name, tensor) in tensors) {
            check(tensor.dtype != DType.F16) { "F16 is read only" }
            val begin = end
            end += tensor.shape.fold(1) { a, b -> a * b } * tensor.dtype.bytes
            header[name] = mapOf(
                "dtype" to tensor.dtype.name,
                "shape" to tensor.shape.toList(),
                "data_offsets" to listOf(begin, end),
            )
        }
        val text = Json.write(header).trim().toByteArray()
        val padded = (text.size + 7) / 8 * 8
        val out = ByteBuffer.allocate(8 + padded + end).order(ByteOrder.LITTLE_ENDIAN)
        out.putLong(padded.toLong()).put(text)
        repeat(padded - text.size) { out.put(' '.code.toByte()) }
        for (tensor in tensors.values) {
            val place = out.slice().order(ByteOrder.LITTLE_ENDIAN)
            when (val data = tensor.data) {
                is ByteArray -> place.put(data)
                is ShortArray -> place.asShortBuffer().put(data)
                is IntArray -> place.asIntBuffer().put(data)
                is LongArray -> place.asLongBuffer().put(data)
                is FloatArray -> place.asFloatBuffer().put(data)
                is DoubleArray -> place.asDoubleBuffer().put(data)
            }
            out.position(out.position() + tensor.shape.fold(1) { a, b -> a * b } * tensor.dtype.bytes)
        }
        return out.array()
    }

    companion object {
        private const val LARGEST_HEADER = 1 shl 20

        /**
         * The way back of [save]. [where] names the file in errors.
         *
         * Every byte behind the header must belong to exactly one tensor.
         */
        fun load(data: ByteArray, where: String): Safetensors {
            fun damaged(why: String) =
                MobileBilayerError("$where is no safetensors file, or it is damaged: $why. Export or copy it again.")

            val all = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN)
            val size = if (data.size >= 8) all.getLong(0) else -1
            if (size !in 2..minOf(LARGEST_HEADER, data.size - 8)) throw damaged("its header has $size bytes")
            val text = String(data, 8, size.toInt(), Charsets.UTF_8)
            val header = Json.parse(text, "$where: the header") as? Map<*, *> ?: throw damaged("its header is no object")
            val words = header["__metadata__"] ?: emptyMap<String, String>()
            if (words !is Map<*, *> || !words.values.all { it is String }) throw damaged("its metadata is no text")
            val begin = 8 + size.toInt()
            val spans = ArrayList<IntRange>()
            val tensors = LinkedHashMap<String, Tensor>()
            for ((key, value) in header) {
                if (key == "__metadata__") continue
                val name = (key as String).take(40)
                val entry = value as? Map<*, *> ?: throw damaged("$name is no object")
                val dtype = DType.entries.find { it.name == entry["dtype"] } ?: throw damaged("$name has an unknown type")
                val shape = wholeNumbers(entry["shape"]) ?: throw damaged("$name has no shape")
                val count = shape.fold(1L) { a, b -> if (a > data.size) a else a * b } // grows no further than can be
                val span = wholeNumbers(entry["data_offsets"])
                if (span?.size != 2 || span[0] > span[1] || span[1] > data.size - begin) {
                    throw damaged("$name lies outside the file")
                }
                if (count * dtype.bytes != (span[1] - span[0]).toLong()) {
                    throw damaged("$name of shape ${shape.text()} has ${span[1] - span[0]} bytes")
                }
                spans += span[0] until span[1]
                all.position(begin + span[0])
                tensors[key] = Tensor(dtype, shape, read(all.slice().order(ByteOrder.LITTLE_ENDIAN), dtype, count.toInt()))
            }
            val ends = spans.filter { !it.isEmpty() }.sortedBy { it.first }
            val joined = ends.zipWithNext().all { (a, b) -> a.last + 1 == b.first }
            if (!joined || (ends.lastOrNull()?.last ?: -1) + 1 != data.size - begin || (ends.firstOrNull()?.first ?: 0) != 0) {
                throw damaged("its tensors do not fill it")
            }
            return Safetensors(tensors, words.entries.associate { (k, v) -> k as String to v as String })
        }

        private fun wholeNumbers(value: Any?): IntArray? {
            val list = value as? List<*> ?: return null
            if (!list.all { it is Long && it in 0..Int.MAX_VALUE.toLong() }) return null
            return IntArray(list.size) { (list[it] as Long).toInt() }
        }

        private fun read(from: ByteBuffer, dtype: DType, count: Int): Any = when (dtype) {
            DType.BOOL, DType.U8 -> ByteArray(count).also { from.get(it) }
            DType.I16 -> ShortArray(count).also { from.asShortBuffer().get(it) }
            DType.I32 -> IntArray(count).also { from.asIntBuffer().get(it) }
            DType.I64 -> LongArray(count).also { from.asLongBuffer().get(it) }
            DType.F32 -> FloatArray(count).also { from.asFloatBuffer().get(it) }
            DType.F64 -> DoubleArray(count).also { from.asDoubleBuffer().get(it) }
            DType.F16 -> FloatArray(count) { halfToFloat(from.getShort(2 * it).toInt()) }
        }

        /** The value of 16 bits that hold a half-precision number. */
        internal fun halfToFloat(bits: Int): Float {
            val sign = if (bits and 0x8000 != 0) -1f else 1f
            val exponent = bits shr 10 and 0x1f
            val fraction = bits and 0x3ff
            return when (exponent) {
                0 -> sign * fraction / (1 shl 24)
                31 -> if (fraction == 0) sign * Float.POSITIVE_INFINITY else Float.NaN
                else -> Float.fromBits((bits and 0x8000 shl 16) or (exponent + 112 shl 23) or (fraction shl 13))
            }
        }
    }
}
