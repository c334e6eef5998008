package dev.mobilebilayer.core

import kotlin.math.abs

/** The newest manifest that this reader knows; 1 had `rigid_points` in place of the whole template, and no stabiliser. */
const val FORMAT_VERSION = 2

/** The backend whose program is a folder. */
const val CORE_ML = "coreml"

/** Of each method, names of its inputs and of its outputs. */
val METHODS: Map<String, Pair<List<String>, List<String>>> = mapOf(
    "encode_avatar" to (listOf("image", "source_landmarks") to listOf("landmark_features", "map_features", "alpha")),
    "render_layers" to (listOf("landmark_features", "map_features", "source_landmarks", "landmarks") to listOf("layers_a", "layers_b")),
)

/** An input or output: always float32. [low] and [high] say its range; null where there is none. */
data class TensorSpec(val name: String, val shape: List<Int>, val low: Double?, val high: Double?) {
    internal val dims: IntArray = shape.toIntArray()
}

/**
 * A method of the program.
 *
 * [undelegated] operator outside the backend: why; [largestError] of each output against the float student
 */
data class MethodSpec(
    val inputs: List<TensorSpec>,
    val outputs: List<TensorSpec>,
    val undelegated: Map<String, String>,
    val largestError: Map<String, Double>,
)

/**
 * manifest.json: what a bundle says of itself.
 *
 * [student] first 16 digits of the sha256 of the float weights: avatars fit every bundle of one student
 * [program] file name of the ExecuTorch program; of a Core ML one, the folder that holds a package for each method
 * [sha256] of every other file
 * [mesh] landmark indices, in the order the program takes them
 * [headPoints] x, y, z in the face template's units, behind the mesh; [torsoPoints] x, y in crop coordinates, last
 * [templatePoints] x, y, z of the face template's 478 landmarks; [rigid] those that the head's pose is fitted to
 * [stabilizer] how the driver's motion is smoothed, unless a user wants it otherwise
 * [cropUp] the crop's half side is the larger side of the landmarks' box, moved up by this share of it
 * [imagePx] side of source, texture and result
 */
data class Manifest(
    val formatVersion: Int,
    val name: String,
    val student: String,
    val size: String,
    val precision: String,
    val backend: String,
    val minimumRuntime: String,
    val program: String,
    val sha256: Map<String, String>,
    val methods: Map<String, MethodSpec>,
    val mesh: List<Int>,
    val headPoints: List<List<Double>>,
    val torsoPoints: List<List<Double>>,
    val templatePoints: List<List<Double>>,
    val rigid: List<Int>,
    val stabilizer: StabilizerConfig,
    val cropUp: Double,
    val imagePx: Int,
) {
    companion object {
        private val KEYS = setOf(
            "format_version", "name", "student", "size", "precision", "backend", "minimum_runtime", "program", "sha256", "methods",
            "mesh", "head_points", "torso_points", "template_points", "rigid", "stabilizer", "crop_up", "image_px",
        )

        /**
         * Strict: every key there, none unknown, every value of its kind. [where] names the bundle in errors.
         *
         * A manifest of version 1 becomes one of this version. Raises [MobileBilayerError].
         */
        fun fromJson(text: String, where: String): Manifest {
            val read = ManifestReader("$where: manifest.json")
            var values = read.map(Json.parse(text, read.where), "the manifest")
            val version = read.whole(values["format_version"], "format_version")
            if (version !in 1..FORMAT_VERSION) {
                val remedy = if (version > FORMAT_VERSION) "Update the app." else "Export the bundle again."
                throw MobileBilayerError("${read.where} has format version $version; this reader knows 1 to $FORMAT_VERSION. $remedy")
            }
            if (version == 1) values = read.secondVersion(values)
            read.keys(values, KEYS, "the manifest")
            fun text(key: String) = read.text(values[key], key)
            val methods = read.map(values["methods"], "methods")
            if (methods.keys != METHODS.keys) {
                throw read.error("methods are ${methods.keys.sorted()}; they must be ${METHODS.keys.sorted()}")
            }
            val sha256 = read.map(values["sha256"], "sha256").entries.associate { (name, hash) ->
                read.file(name, text("backend"), text("program")) to read.hash(hash, name)
            }
            val manifest = Manifest(
                FORMAT_VERSION, text("name"), text("student"), text("size"), text("precision"), text("backend"),
                text("minimum_runtime"), text("program"), sha256,
                methods.mapValues { (name, spec) -> read.method(spec, name) },
                read.landmarks(values["mesh"], "mesh"),
                read.points(values["head_points"], 3, "head_points"),
                read.points(values["torso_points"], 2, "torso_points"),
                read.points(values["template_points"], 3, "template_points"),
                read.landmarks(values["rigid"], "rigid"),
                read.stabilizer(values["stabilizer"]),
                read.number(values["crop_up"], "crop_up"),
                read.whole(values["image_px"], "image_px"),
            )
            if (manifest.imagePx != 256) throw read.error("image_px is ${manifest.imagePx}; this reader runs 256")
            val packages = METHODS.keys.map { "${manifest.program}/$it.mlpackage/Manifest.json" }
            for (file in if (manifest.backend == CORE_ML) packages else listOf(manifest.program)) {
                if (file !in sha256) throw read.error("sha256 does not list the program $file")
            }
            return manifest
        }
    }
}

/** Those of this version's face template, as a manifest has them. */
fun templatePoints(): List<List<Double>> = faceTemplate().points.toList().chunked(3) { row -> row.map { Math.rint(it * 1e6) / 1e6 } }

/** Checks of one file's values. */
private class ManifestReader(val where: String) {
    fun error(what: String) = MobileBilayerError("$where: $what. Export or copy the bundle again.")

    private inline fun <reified T> ofKind(value: Any?, name: String, kind: String): T =
        value as? T ?: throw error("$name is '${value.toString().take(40)}'; it must be $kind")

    fun text(value: Any?, name: String): String = ofKind(value, name, "text")

    fun whole(value: Any?, name: String): Int {
        val long: Long = ofKind(value, name, "a whole number")
        if (abs(long) > Int.MAX_VALUE) throw error("$name is $long; it is too large")
        return long.toInt()
    }

    fun list(value: Any?, name: String): List<Any?> = ofKind(value, name, "a list")

    fun map(value: Any?, name: String): Map<String, Any?> =
        ofKind<Map<*, *>>(value, name, "an object").entries.associate { (key, part) -> key as String to part }

    fun number(value: Any?, name: String): Double {
        val number = ofKind<Number>(value, name, "a number").toDouble()
        if (!(abs(number) < 1e6)) throw error("$name is $number; it must be a number below a million")
        return number
    }

    fun keys(values: Map<String, Any?>, wanted: Set<String>, name: String) {
        for ((kind, names) in listOf("lacks" to wanted - values.keys, "has unknown" to values.keys - wanted)) {
            if (names.isNotEmpty()) throw error("$name $kind ${names.sorted().take(5).joinToString { it.take(40) }}")
        }
    }

    fun points(value: Any?, size: Int, name: String): List<List<Double>> {
        val rows = list(value, name).map { list(it, name) }
        if (rows.isEmpty() || rows.any { it.size != size }) throw error("$name must be points of $size numbers")
        return rows.map { row -> row.map { number(it, name) } }
    }

    fun landmarks(value: Any?, name: String): List<Int> {
        val indices = list(value, name).map { whole(it, name) }
        if (indices.isEmpty() || indices.toSet().size != indices.size || indices.any { it !in 0 until LANDMARKS }) {
            throw error("$name must be different landmark indices in 0..477")
        }
        return indices
    }

    fun stabilizer(value: Any?): StabilizerConfig {
        val values = map(value, "stabilizer")
        keys(values, setOf("pose", "skin", "brows", "mouth", "lids", "gaze", "gap_s"), "stabilizer")
        fun part(name: String) = smoothing(values[name], "stabilizer.$name")
        val gapS = number(values["gap_s"], "stabilizer.gap_s")
        return built("stabilizer") {
            StabilizerConfig(part("pose"), part("skin"), part("brows"), part("mouth"), part("lids"), part("gaze"), gapS)
        }
    }

    private fun smoothing(value: Any?, name: String): Smoothing {
        val values = map(value, name)
        keys(values, setOf("rest_hz", "speed_hz", "newest", "kernel"), name)
        fun number(key: String) = number(values[key], "$name.$key")
        val kernel = list(values["kernel"], "$name.kernel").map { number(it, "$name.kernel") }
        return built(name) { Smoothing(number("rest_hz"), number("speed_hz"), number("newest"), kernel) }
    }

    private fun <T> built(name: String, make: () -> T): T = try {
        make()
    } catch (refused: MobileBilayerError) {
        if (refused.message!!.startsWith(where)) throw refused
        throw MobileBilayerError("$where: $name: ${refused.message} Export or copy the bundle again.", refused)
    }

    /** A plain file name; of a Core ML program, one that lies in the program's folder. */
    fun file(name: String, backend: String, program: String): String {
        val inFolder = backend == CORE_ML && name.startsWith("$program/") && name.count { it == '/' } < 8
        val parts = if (inFolder) name.split("/") else listOf(name)
        if (!parts.all { PLAIN.matches(it) }) throw error("'${name.take(60)}' is no plain file name")
        return name
    }

    fun hash(value: Any?, name: String): String {
        if (!HASH.matches(text(value, "sha256 of $name"))) throw error("sha256 of $name must be 64 hex digits")
        return value as String
    }

    fun method(value: Any?, name: String): MethodSpec {
        val values = map(value, name)
        keys(values, setOf("inputs", "outputs", "undelegated", "largest_error"), name)
        val (inputs, outputs) = listOf("inputs", "outputs").map { kind ->
            list(values[kind], "$name.$kind").map { tensor(it, name) }
        }
        val (takes, gives) = METHODS.getValue(name)
        for ((kind, got, wanted) in listOf(Triple("takes", inputs, takes), Triple("gives", outputs, gives))) {
            if (got.map { it.name } != wanted) {
                val names = got.take(5).joinToString { it.name.take(40) }
                throw error("$name $kind ${names.ifEmpty { "nothing" }}; it must be ${wanted.joinToString()}")
            }
        }
        return MethodSpec(
            inputs,
            outputs,
            map(values["undelegated"], "$name.undelegated").mapValues { text(it.value, "$name.undelegated") },
            map(values["largest_error"], "$name.largest_error").mapValues { number(it.value, "$name.largest_error") },
        )
    }

    private fun tensor(value: Any?, method: String): TensorSpec {
        val values = map(value, "$method's tensors")
        keys(values, setOf("name", "shape", "low", "high"), "a tensor of $method")
        val name = text(values["name"], "a tensor's name in $method")
        val shape = list(values["shape"], "$name.shape").map { whole(it, "$name.shape") }
        if (shape.size !in 1..4 || shape.any { it !in 1..4096 }) throw error("$name of $method has shape ${shape.take(6)}")
        return TensorSpec(name, shape, values["low"]?.let { number(it, "$name.low") }, values["high"]?.let { number(it, "$name.high") })
    }

    /** A first manifest's values: it had the template's rigid points alone, which must be those that we know. */
    fun secondVersion(values: Map<String, Any?>): Map<String, Any?> {
        for (key in listOf("rigid", "rigid_points")) if (key !in values) throw error("the manifest lacks $key")
        val rigid = landmarks(values["rigid"], "rigid")
        val points = points(values["rigid_points"], 3, "rigid_points")
        if (rigid.size != points.size) throw error("rigid has ${rigid.size} landmarks and rigid_points ${points.size}")
        val known = templatePoints()
        if (rigid.zip(points).any { (i, point) -> known[i].zip(point).any { (a, b) -> abs(a - b) > 1e-5 } }) {
            throw error("rigid_points are not those of the face template that this version has")
        }
        val ours = StabilizerConfig()
        val names = listOf("pose", "skin", "brows", "mouth", "lids", "gaze")
        val smoothings = names.zip(listOf(ours.pose, ours.skin, ours.brows, ours.mouth, ours.lids, ours.gaze)) { name, part ->
            name to mapOf("rest_hz" to part.restHz, "speed_hz" to part.speedHz, "newest" to part.newest, "kernel" to part.kernel)
        }
        val added = mapOf("template_points" to known, "stabilizer" to smoothings.toMap() + ("gap_s" to ours.gapS))
        val twice = added.keys intersect values.keys
        if (twice.isNotEmpty()) throw error("the manifest has unknown ${twice.sorted().joinToString()}")
        return values - "rigid_points" + added
    }

    companion object {
        private val PLAIN = Regex("[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
        private val HASH = Regex("[0-9a-f]{64}")
    }
}
