package dev.mobilebilayer.core

/** Kinds of numbers, named as in safetensors files. */
enum class DType(val bytes: Int) { BOOL(1), U8(1), I16(2), I32(4), I64(8), F16(2), F32(4), F64(8) }

/**
 * Numbers with a shape.
 *
 * [data] is a [ByteArray] for BOOL and U8, and a [ShortArray], [IntArray], [LongArray], [FloatArray] or [DoubleArray] for the
 * others; F16 is held as floats. It is not copied: who changes it, changes the tensor.
 */
class Tensor(val dtype: DType, val shape: IntArray, val data: Any) {
    init {
        val length = when (data) {
            is ByteArray -> data.size.takeIf { dtype == DType.U8 || dtype == DType.BOOL }
            is ShortArray -> data.size.takeIf { dtype == DType.I16 }
            is IntArray -> data.size.takeIf { dtype == DType.I32 }
            is LongArray -> data.size.takeIf { dtype == DType.I64 }
            is FloatArray -> data.size.takeIf { dtype == DType.F32 || dtype == DType.F16 }
            is DoubleArray -> data.size.takeIf { dtype == DType.F64 }
            else -> null
        }
        if (length == null || length.toLong() != shape.fold(1L) { a, b -> a * b }) {
            throw MobileBilayerError(
                "A tensor of shape ${shape.text()} and type $dtype was made of ${length ?: data::class.simpleName} numbers. " +
                    "Give it as many as the shape says, of that type.",
            )
        }
    }

    /** Of F32 and F16. */
    val floats: FloatArray get() = data as FloatArray

    /** Of U8 and BOOL. */
    val bytes: ByteArray get() = data as ByteArray

    companion object {
        /** A float tensor around [data]. */
        fun of(data: FloatArray, vararg shape: Int) = Tensor(DType.F32, shape, data)

        /** A float tensor of zeros. */
        fun zeros(vararg shape: Int) = of(FloatArray(shape.fold(1) { a, b -> a * b }), *shape)
    }
}

/** [256, 256, 3] as people write it. */
internal fun IntArray.text(): String = joinToString(", ", "(", ")")
