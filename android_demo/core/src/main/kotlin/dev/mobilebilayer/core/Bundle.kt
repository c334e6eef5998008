package dev.mobilebilayer.core

import java.io.ByteArrayOutputStream
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.security.MessageDigest
import java.util.zip.ZipFile
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/** A file of a bundle is not larger than this, in bytes. */
const val LARGEST_FILE = 64 shl 20

/**
 * A checked bundle in memory. Make it with [Bundle.open]. [where] names it in errors.
 *
 * [sha256] of manifest.json, which has the hashes of all other files; [bytes] of all files together
 */
class Bundle private constructor(
    val manifest: Manifest,
    val contents: Map<String, ByteArray>,
    val where: String,
    val sha256: String,
    val bytes: Long,
) {
    /** MODEL_CARD.md. */
    val card: String get() = String(contents.getValue("MODEL_CARD.md"), Charsets.UTF_8)

    /** A door to [program], which runs this bundle's program. */
    fun network(program: Program) = FrameNetwork(program, manifest.methods, where)

    /**
     * An avatar of a face in a photo.
     *
     * [rgb] the photo, upright; [landmarks] 478 x 3 in its pixels. Takes as long as the network's `encode_avatar` and some tenths of
     * a second: not for the main thread.
     */
    fun avatar(rgb: RgbImage, landmarks: FloatArray, network: FrameNetwork): Avatar {
        checkLandmarks(landmarks)
        if (dimensions(landmarks) != 3) {
            throw MobileBilayerError("A photo's landmarks have 2 numbers each; 3 are needed, in pixels. Take MediaPipe's own.")
        }
        val crop = headCrop(landmarks)
        val texture = crop.cut(rgb, manifest.imagePx)
        val keypoints = crop.toKeypoints(landmarks)
        val spec = manifest.methods.getValue("encode_avatar")
        val image = Tensor.zeros(*spec.inputs[0].dims)
        val pixels = manifest.imagePx * manifest.imagePx
        for (i in 0 until pixels) {
            for (c in 0..2) image.floats[c * pixels + i] = (texture.pixels[3 * i + c].toInt() and 255) / 255f
        }
        val (features, maps, alpha) = spec.outputs.map { Tensor.zeros(*it.dims) }
        val points = Tensor.of(networkPoints(keypoints), *spec.inputs[1].dims)
        network.run("encode_avatar", arrayOf(image, points), arrayOf(features, maps, alpha))
        for (i in alpha.floats.indices) alpha.floats[i] = min(max(alpha.floats[i], 0f), 1f)
        val background = fillBehind(texture, grown(alpha.floats, alpha.shape[2], manifest.imagePx))
        val person = ByteArray(alpha.floats.size) { round(alpha.floats[it] * 255).toInt().toByte() }
        return Avatar(this, texture, background, person, features.floats, maps.floats, keypoints)
    }

    /** Golden vectors: real inputs, what the float student gives for them, and the tolerance of each output. */
    fun golden(): Golden {
        val file = Safetensors.load(contents.getValue("golden.safetensors"), "$where: golden.safetensors")
        val tolerances = Json.parse(file.metadata["tolerances"] ?: "null", "$where: golden.safetensors: tolerances")
        val numbers = (tolerances as? Map<*, *>)?.entries?.associate { it.key as String to (it.value as? Number)?.toDouble() }
        if (numbers == null || CHECKED.any { numbers[it] == null }) {
            throw MobileBilayerError("$where: golden.safetensors lacks tolerances of ${CHECKED.joinToString()}. Export the bundle again.")
        }
        return Golden(file, CHECKED.associateWith { numbers.getValue(it)!! }, manifest, where)
    }

    /**
     * Run the golden inputs through the program and the compositor; largest error of each output.
     *
     * Raises [MobileBilayerError] when one is over its tolerance: this runtime computes something else than the student.
     */
    fun verify(network: FrameNetwork): Map<String, Float> {
        val golden = golden()
        val (encode, render) = listOf("encode_avatar", "render_layers").map { manifest.methods.getValue(it) }
        val features = encode.outputs.map { Tensor.zeros(*it.dims) }.toTypedArray()
        val layers = render.outputs.map { Tensor.zeros(*it.dims) }.toTypedArray()
        val source = golden.tensor("source_points", encode.inputs[1])
        network.run("encode_avatar", arrayOf(golden.tensor("image", encode.inputs[0]), source), features)
        network.run(
            "render_layers",
            arrayOf(
                golden.tensor("landmark_features", render.inputs[0]),
                golden.tensor("map_features", render.inputs[1]),
                source,
                golden.tensor("driving_points", render.inputs[3]),
            ),
            layers,
        )
        val errors = LinkedHashMap<String, Float>()
        encode.outputs.zip(features) { spec, got -> errors[spec.name] = largest(got.floats, golden.numbers(spec.name)) }
        val a = golden.numbers("layers_a")
        val plane = a.size / 4
        for ((part, channels) in listOf("flow" to 0..1, "gate" to 2..2, "mask" to 3..3)) {
            errors[part] = largest(layers[0].floats, a, channels.first * plane, (channels.last + 1) * plane)
        }
        errors["layers_b"] = largest(layers[1].floats, golden.numbers("layers_b"))
        errors["composed"] = largest(golden.composed(layers[0].floats, layers[1].floats), golden.numbers("composed"))
        errors["composed_from_golden"] = largest(golden.composed(a, golden.numbers("layers_b")), golden.numbers("composed"))
        for ((name, error) in errors) {
            val most = golden.tolerances.getValue(name)
            if (!(error <= most)) {
                throw MobileBilayerError(
                    "$where: $name is $error from the golden vectors; at most $most is right. This runtime computes something else than " +
                        "the exported student: use the runtime that the bundle was exported for.",
                )
            }
        }
        return errors
    }

    companion object {
        /** What [verify] looks at. layers_a by its parts: a tolerance that suits a mask would pass any flow. */
        val CHECKED: List<String> = listOf(
            "landmark_features", "map_features", "alpha", "flow", "gate", "mask", "layers_b", "composed", "composed_from_golden",
        )

        /** The bundle at [path], a folder or a zip. Raises [MobileBilayerError] that says what is wrong. */
        fun open(path: File): Bundle {
            if (path.isDirectory) return open(path.path) { name -> File(path, name).takeIf { it.isFile }?.let { whole(it, path.path) } }
            if (!path.exists()) throw MobileBilayerError("$path does not exist; a bundle (a folder or a zip) is needed. Check the path.")
            val zip = try {
                ZipFile(path)
            } catch (error: Exception) { // also for names that are no text
                throw MobileBilayerError("$path is no bundle: neither a folder nor a readable zip (${error.message}).", error)
            }
            return zip.use {
                // File managers zip the folder itself: its name stands before each file's.
                val names = zip.entries().asSequence().map { it.name }.toList()
                val inside = names.filter { it.endsWith("/manifest.json") && it.count { c -> c == '/' } == 1 }
                val prefix = if ("manifest.json" !in names && inside.size == 1) inside[0].removeSuffix("manifest.json") else ""
                open(path.path) { name -> member(zip, prefix + name, path.path) }
            }
        }

        /**
         * A bundle wherever it lies, as among an app's assets: [read] gives a file's content, or null where there is none.
         *
         * Every file's sha256 is checked.
         */
        fun open(where: String, read: (String) -> ByteArray?): Bundle {
            fun needed(name: String) = read(name) ?: throw MobileBilayerError(
                "$where: $name is missing. A bundle holds manifest.json, a program, golden.safetensors and MODEL_CARD.md; " +
                    "export or copy it again.",
            )
            val text = needed("manifest.json")
            val manifest = Manifest.fromJson(String(text, Charsets.UTF_8), where)
            checkPoints(manifest, where)
            for (name in listOf("golden.safetensors", "MODEL_CARD.md")) {
                if (name in manifest.sha256) continue
                throw MobileBilayerError("$where: manifest.json does not list $name. Export the bundle again.")
            }
            val contents = manifest.sha256.mapValues { (name, wanted) ->
                val data = needed(name)
                val got = sha256(data)
                if (got != wanted) {
                    throw MobileBilayerError(
                        "$where: $name has sha256 ${got.take(12)}…, the manifest says ${wanted.take(12)}…: it was changed or damaged. " +
                            "Export or copy the bundle again.",
                    )
                }
                data
            }
            return Bundle(manifest, contents, where, sha256(text), text.size + contents.values.sumOf { it.size.toLong() })
        }

        private fun sha256(data: ByteArray) = MessageDigest.getInstance("SHA-256").digest(data).joinToString("") { "%02x".format(it) }

        private fun whole(file: File, where: String): ByteArray {
            if (file.length() > LARGEST_FILE) throw tooLarge(where, file.name)
            return try {
                file.readBytes()
            } catch (error: IOException) {
                throw MobileBilayerError("$where: ${file.name} can't be read (${error.message}). Copy the bundle again.", error)
            }
        }

        private fun member(zip: ZipFile, name: String, where: String): ByteArray? {
            val entry = zip.getEntry(name) ?: return null
            if (entry.size > LARGEST_FILE) throw tooLarge(where, name)
            val data = try {
                zip.getInputStream(entry).use { readAtMost(it, LARGEST_FILE) } // whatever size the zip claims
            } catch (error: IOException) {
                throw MobileBilayerError("$where: $name can't be unpacked (${error.message}). Copy the bundle again.", error)
            }
            return data ?: throw tooLarge(where, name)
        }

        /** All of it, or null if it is more than [limit] bytes. */
        private fun readAtMost(from: InputStream, limit: Int): ByteArray? {
            val out = ByteArrayOutputStream()
            val part = ByteArray(1 shl 16)
            while (out.size() <= limit) {
                val count = from.read(part)
                if (count < 0) return out.toByteArray()
                out.write(part, 0, count)
            }
            return null
        }

        private fun tooLarge(where: String, name: String) =
            MobileBilayerError("$where: $name is larger than ${LARGEST_FILE shr 20} MiB. This is no bundle of ours.")

        /** A program made for other points than those computed here would be fed the wrong ones. */
        private fun checkPoints(manifest: Manifest, where: String) {
            val here = listOf(
                Triple("mesh", manifest.mesh.map { it.toDouble() }, MESH.map { it.toDouble() }),
                Triple("head_points", manifest.headPoints.flatten(), HEAD_POINTS.flatMap { it.map(Float::toDouble) }),
                Triple("torso_points", manifest.torsoPoints.flatten(), TORSO_POINTS.flatMap { it.map(Float::toDouble) }),
                Triple("template_points", manifest.templatePoints.flatten(), faceTemplate().points.map { it.toDouble() }),
                Triple("rigid", manifest.rigid.map { it.toDouble() }, faceTemplate().rigid.map { it.toDouble() }),
                Triple("crop_up", listOf(manifest.cropUp), listOf(CROP_UP)),
            )
            for ((name, got, wanted) in here) {
                if (got.size != wanted.size || got.zip(wanted).any { (a, b) -> abs(a - b) > 1e-5 }) {
                    throw MobileBilayerError(
                        "$where: manifest.json: $name is not what this version computes. Export the bundle again, or update the app.",
                    )
                }
            }
        }
    }
}

/** The vectors of [Bundle.golden], and their [tolerances]. */
class Golden internal constructor(
    private val file: Safetensors,
    val tolerances: Map<String, Double>,
    manifest: Manifest,
    private val where: String,
) {
    private val shapes: Map<String, List<Int>> = manifest.methods.getValue("encode_avatar").let { encode ->
        val side = file.tensors["composite_texture"]?.shape?.firstOrNull() ?: 0 // composites may be of any side
        val pictures = listOf("composite_texture", "composite_background", "composed").associateWith { listOf(side, side, 3) }
        val points = listOf("source_points", "driving_points").associateWith { encode.inputs[1].shape.drop(1) }
        val outputs = encode.outputs + manifest.methods.getValue("render_layers").outputs
        outputs.associate { it.name to it.shape } + pictures + points + ("image" to encode.inputs[0].shape.drop(1))
    }

    /** The tensor [name] as floats; bytes of "image" become [0, 1], of other pictures [-1, 1]. */
    fun numbers(name: String): FloatArray {
        val wanted = shapes.getValue(name)
        val found = file.tensors[name]
        val data = found?.data
        if (found == null || found.shape.toList() != wanted || !(data is FloatArray || data is ByteArray)) {
            val got = found?.let { "${it.shape.text()} ${it.dtype}" } ?: "missing"
            throw MobileBilayerError(
                "$where: golden.safetensors: $name is $got; it must be ${wanted.toIntArray().text()}. Export the bundle again.",
            )
        }
        if (data is FloatArray) return data
        val bytes = data as ByteArray
        return if (name == "image") FloatArray(bytes.size) { (bytes[it].toInt() and 255) / 255f } else toFloat(bytes)
    }

    /** The same as an input of the program. */
    fun tensor(name: String, spec: TensorSpec) = Tensor.of(numbers(name), *spec.dims)

    /** The golden texture and background joined by such layers. */
    fun composed(layersA: FloatArray, layersB: FloatArray): FloatArray {
        val side = shapes.getValue("composed")[0]
        val (a, b) = listOf("layers_a", "layers_b").map { shapes.getValue(it).last() }
        return Compositor(side, a, b).composite(numbers("composite_texture"), numbers("composite_background"), layersA, layersB)
    }
}

private fun largest(got: FloatArray, wanted: FloatArray, from: Int = 0, until: Int = got.size): Float {
    var most = 0f
    for (i in from until until) {
        val error = abs(got[i] - wanted[i])
        if (!(error <= most)) most = error
        if (error.isNaN()) return error
    }
    return most
}

/** A square of [px] numbers a side, bilinearly grown. */
internal fun grown(plane: FloatArray, px: Int, toPx: Int): FloatArray = FloatArray(toPx * toPx) { k ->
    val (y, x) = listOf(k / toPx, k % toPx).map { min(max((it + 0.5) * px / toPx - 0.5, 0.0), px - 1.0) }
    val (top, left) = y.toInt() to x.toInt()
    val (below, right) = min(top + 1, px - 1) to min(left + 1, px - 1)
    val (v, u) = y - top to x - left
    val above = plane[top * px + left] * (1 - u) + plane[top * px + right] * u
    val under = plane[below * px + left] * (1 - u) + plane[below * px + right] * u
    (above * (1 - v) + under * v).toFloat()
}
