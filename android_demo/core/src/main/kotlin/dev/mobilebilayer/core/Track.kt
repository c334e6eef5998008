package dev.mobilebilayer.core

/**
 * Landmarks of a clip, one frame for each of its pictures.
 *
 * [landmarks] N times 478 x 3, in pixels of the driving picture
 * [timesS] N, seconds from the clip's start, strictly growing
 * [found] N, whether a face was seen; if not, the landmarks are those of another frame
 * [width], [height] pixels of the driving picture
 */
class Track(
    val landmarks: Array<FloatArray>,
    val timesS: DoubleArray,
    val found: BooleanArray,
    val width: Int,
    val height: Int,
) {
    companion object {
        /** From the bytes of a .track file; [where] names it in errors. */
        fun load(data: ByteArray, where: String): Track {
            val remedy = "Copy it again, or track the clip again."
            val file = Safetensors.load(data, where)
            if (file.metadata["format"] != "mobile_bilayer track") {
                throw MobileBilayerError("$where is a safetensors file, but not a track. Choose a .track file.")
            }
            if (file.metadata["version"] != "1") {
                throw MobileBilayerError("$where is a track of version ${file.metadata["version"]}; we read 1. Update mobile_bilayer.")
            }
            val count = file.tensors["times_s"]?.shape?.firstOrNull() ?: 0
            fun tensor(name: String, dtype: DType, vararg shape: Int) = file.tensor(name, dtype, shape, where, remedy).data
            val steps = tensor("landmarks", DType.I16, count, LANDMARKS, 3) as ShortArray
            val offsets = tensor("offsets", DType.I32, count, 3) as IntArray
            val times = tensor("times_s", DType.F64, count) as DoubleArray
            val found = tensor("found", DType.BOOL, count) as ByteArray
            fun damaged(why: String) = MobileBilayerError("$where is damaged: $why. $remedy")
            fun whole(name: String, pattern: String): List<Double> {
                val text = file.metadata[name] ?: ""
                if (!Regex(pattern).matches(text)) throw damaged("its $name is '${text.take(40)}'")
                return text.split("/").map { it.toDouble() }
            }
            val (over, under) = whole("step_px", "$WHOLE/$WHOLE")
            val (width) = whole("width", WHOLE)
            val (height) = whole("height", WHOLE)
            if (count < 1) throw damaged("it has no frames")
            if (times.any { !it.isFinite() } || (1 until count).any { times[it] <= times[it - 1] }) {
                throw damaged("its times do not grow")
            }
            val step = over / under
            val landmarks = Array(count) { frame ->
                FloatArray(3 * LANDMARKS) { k ->
                    ((steps[3 * LANDMARKS * frame + k].toLong() + offsets[3 * frame + k % 3]) * step).toFloat()
                }
            }
            if (landmarks.any { frame -> frame.any { !(Math.abs(it) <= LIMIT_PX) } }) throw damaged("its landmarks are no pixels")
            return Track(landmarks, times, BooleanArray(count) { found[it].toInt() != 0 }, width.toInt(), height.toInt())
        }

        private const val WHOLE = "[1-9][0-9]{0,8}"
    }
}
