package dev.mobilebilayer.core

/**
 * One person, ready to be driven. Made by [Bundle.avatar], or [load]ed.
 *
 * [texture] 256 x 256, the photo's head crop; [background] the same without the person
 * [alpha] 128 x 128, the person in the crop, unsigned bytes
 * [landmarkFeatures], [mapFeatures] what the frame network reads
 * [sourceLandmarks] 478 x 3 in [-1, 1] of the crop
 */
class Avatar(
    val bundle: Bundle,
    val texture: RgbImage,
    val background: RgbImage,
    val alpha: ByteArray,
    val landmarkFeatures: FloatArray,
    val mapFeatures: FloatArray,
    val sourceLandmarks: FloatArray,
) {
    /** As the bytes of NAME.avatar. It carries an AI-generated tag, as it is there to make such pictures. */
    fun save(): ByteArray {
        val shapes = tensorSpecs(bundle.manifest)
        val data = mapOf(
            "texture" to texture.pixels,
            "background" to background.pixels,
            "alpha" to alpha,
            "landmark_features" to landmarkFeatures,
            "map_features" to mapFeatures,
            "source_landmarks" to sourceLandmarks,
        )
        val header = mapOf(
            "format" to FORMAT,
            "version" to VERSION,
            "student" to bundle.manifest.student,
            "content" to "AI-generated avatar of a photo",
        )
        // Wide numbers first, so that they lie where readers in place want them.
        val order = shapes.entries.sortedByDescending { it.value.first.bytes }
        return Safetensors(order.associate { (name, spec) -> name to Tensor(spec.first, spec.second, data.getValue(name)) }, header).save()
    }

    companion object {
        private const val FORMAT = "mobile_bilayer avatar"
        private const val VERSION = "1"

        /**
         * The way back of [save]; [where] names the file in errors. [bundle] must hold the same student as the one that made it.
         *
         * Raises [MobileBilayerError] that says what is wrong.
         */
        fun load(data: ByteArray, where: String, bundle: Bundle): Avatar {
            val file = Safetensors.load(data, where)
            val header = file.metadata
            if (header["format"] != FORMAT) throw MobileBilayerError("$where is not an avatar. Make one of a photo.")
            if (header["version"] != VERSION) {
                val version = header["version"]?.take(20)
                throw MobileBilayerError("$where has format version $version; this one reads $VERSION. Update the app.")
            }
            if (header["student"] != bundle.manifest.student) {
                throw MobileBilayerError(
                    "$where was made with the student ${header["student"]?.take(16)}; ${bundle.where} holds ${bundle.manifest.student}. " +
                        "Make the avatar of its photo again.",
                )
            }
            val tensors = tensorSpecs(bundle.manifest).mapValues { (name, spec) ->
                file.tensor(name, spec.first, spec.second, where, "Make the avatar of its photo again.").also { tensor ->
                    if ((tensor.data as? FloatArray)?.any { !it.isFinite() } == true) {
                        throw MobileBilayerError("$where: $name holds what is not a number. Make the avatar of its photo again.")
                    }
                }
            }
            fun picture(name: String) = tensors.getValue(name).let { RgbImage(it.shape[1], it.shape[0], it.bytes) }
            val landmarks = tensors.getValue("source_landmarks").floats
            try {
                checkLandmarks(landmarks)
            } catch (error: MobileBilayerError) {
                throw MobileBilayerError("$where: source_landmarks: ${error.message} Make the avatar of its photo again.", error)
            }
            return Avatar(
                bundle, picture("texture"), picture("background"), tensors.getValue("alpha").bytes,
                tensors.getValue("landmark_features").floats, tensors.getValue("map_features").floats, landmarks,
            )
        }

        private fun tensorSpecs(manifest: Manifest): Map<String, Pair<DType, IntArray>> {
            val inputs = manifest.methods.getValue("render_layers").inputs
            val side = manifest.imagePx
            return mapOf(
                "texture" to (DType.U8 to intArrayOf(side, side, 3)),
                "background" to (DType.U8 to intArrayOf(side, side, 3)),
                "alpha" to (DType.U8 to intArrayOf(128, 128)),
                "landmark_features" to (DType.F32 to inputs[0].dims),
                "map_features" to (DType.F32 to inputs[1].dims),
                "source_landmarks" to (DType.F32 to intArrayOf(LANDMARKS, 3)),
            )
        }
    }
}

/**
 * One frame's layers, in buffers: [a] 1 x 4 x h x w (flow x, flow y, gate, mask), [b] 1 x 3 x h' x w' (lf).
 *
 * [capturedNs] when the camera took the frame they follow; [lost] whether no face was found in it
 */
class Layers(manifest: Manifest) {
    private val outputs = manifest.methods.getValue("render_layers").outputs
    val a = Tensor.zeros(*outputs[0].dims)
    val b = Tensor.zeros(*outputs[1].dims)
    var capturedNs = 0L
    var lost = false
    internal val both = arrayOf(a, b)
}

/**
 * An avatar that is driven: motion in, layers out. No frame allocates. For one thread.
 *
 * [neutral] what of the driver means "as in the photo"; [setNeutral] changes it
 */
class Renderer(val avatar: Avatar, private val network: FrameNetwork, neutral: Motion, mode: Mode = Mode.RELATIVE) {
    private val retargeter = Retargeter(takeApart(avatar.sourceLandmarks), neutral, mode)
    private val specs = avatar.bundle.manifest.methods.getValue("render_layers").inputs
    private val moved = FloatArray(2 * LANDMARKS)
    private val points = Tensor.zeros(*specs[3].dims)
    private val pose = HeadPose()
    private val inputs = arrayOf(
        Tensor.of(avatar.landmarkFeatures, *specs[0].dims),
        Tensor.of(avatar.mapFeatures, *specs[1].dims),
        Tensor.of(networkPoints(avatar.sourceLandmarks), *specs[2].dims),
        points,
    )

    /** From now on with another neutral frame. */
    fun setNeutral(neutral: Motion) = retargeter.setNeutral(neutral)

    /** The driver's motion on the source: 478 x 2 in [-1, 1] of the source's crop, in a buffer that the next call fills anew. */
    fun move(driving: Motion): FloatArray = retargeter.retarget(driving, moved)

    /** The layers of landmarks (478 points of 2 or 3 numbers) in [-1, 1] of the source's crop. */
    fun layers(moved: FloatArray, out: Layers): Layers {
        networkPoints(moved, points.floats, pose)
        network.run("render_layers", inputs, out.both)
        return out
    }
}
