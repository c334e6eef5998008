package dev.mobilebilayer.core

import java.io.File
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import kotlin.test.fail
import org.junit.jupiter.api.Assumptions

/** The repository, wherever the tests are run in it. */
val ROOT: File = generateSequence(File("").absoluteFile) { it.parentFile }.first { File(it, "golden/constants.json").exists() }

val SHIPPED = File(ROOT, "mobile_bilayer/assets/student-S-256-int8-xnnpack")

val shipped: Bundle by lazy { Bundle.open(SHIPPED) }

/** The shipped driver: 198 frames at 25 a second. */
val driver: Track by lazy {
    val file = File(ROOT, "mobile_bilayer/assets/driving.track")
    Track.load(file.readBytes(), file.path)
}

/** A file of golden/. */
fun goldenFile(name: String): Map<*, *> = Json.parse(File(ROOT, "golden/$name").readText(), name) as Map<*, *>

/** Inputs and outputs of each case of a file of golden/. */
fun goldenCases(name: String): List<Pair<Map<*, *>, Map<*, *>>> = (goldenFile(name)["cases"] as List<*>).map {
    val case = it as Map<*, *>
    case["inputs"] as Map<*, *> to case["outputs"] as Map<*, *>
}

/** All numbers of nested lists, row by row. */
fun numbers(value: Any?): DoubleArray {
    val out = ArrayList<Double>()
    fun collect(part: Any?) {
        if (part is List<*>) part.forEach(::collect) else out += (part as Number).toDouble()
    }
    collect(value)
    return out.toDoubleArray()
}

fun floats(value: Any?): FloatArray = numbers(value).let { all -> FloatArray(all.size) { all[it].toFloat() } }

fun FloatArray.doubles() = DoubleArray(size) { this[it].toDouble() }

/** Every [stride]th point of [size] numbers each. */
fun DoubleArray.points(stride: Int, size: Int): DoubleArray = filterIndexed { i, _ -> i / size % stride == 0 }.toDoubleArray()

/** Fails unless all numbers are as near as golden files ask for; says which one is not. */
fun assertNear(wanted: DoubleArray, got: DoubleArray, tolerance: Double = 1e-4, what: String = "value") {
    assertTrue(wanted.size == got.size, "$what has ${got.size} numbers, ${wanted.size} are right")
    for (i in wanted.indices) {
        if (!(Math.abs(wanted[i] - got[i]) <= tolerance)) fail("$what $i is ${got[i]}, ${wanted[i]} is right within $tolerance")
    }
}

/** Where pytest puts what Python made, and looks for what Kotlin makes of it. */
fun exchange(): File {
    val folder = System.getenv("MOBILE_BILAYER_EXCHANGE")?.let(::File)
    Assumptions.assumeTrue(folder != null, "MOBILE_BILAYER_EXCHANGE names no folder: pytest does")
    return folder!!
}

/** Waits, but not for ever. */
fun waitUntil(what: String, isSo: () -> Boolean) {
    val untilNs = System.nanoTime() + 10_000_000_000
    while (!isSo()) if (System.nanoTime() > untilNs) fail("still not so: $what") else Thread.yield()
}

/** What is said of bad input; every such message says what to do as well. */
fun refusal(use: () -> Unit): String {
    val message = assertFailsWith<MobileBilayerError> { use() }.message!!
    assertTrue(message.trim().endsWith(".") && message.count { it == '.' || it == ';' } >= 2, "no remedy: $message")
    return message
}

/** What the golden program gives: every call does as the float student did. Counts calls, and says when they overlap. */
class GoldenProgram(private val golden: Golden = shipped.golden()) : Program {
    var calls = 0
    var closed = 0
    private val kept = listOf("landmark_features", "map_features", "alpha", "layers_a", "layers_b").associateWith { golden.numbers(it) }

    override fun execute(method: String, inputs: Array<Tensor>, outputs: Array<Tensor>) {
        check(closed == 0) { "executed after close" }
        calls++
        val spec = shipped.manifest.methods.getValue(method)
        for (i in outputs.indices) kept.getValue(spec.outputs[i].name).copyInto(outputs[i].floats)
    }

    override fun close() {
        closed++
    }
}

/** The person of the golden avatar on a neutral frame: as in the photo, with lips that are shut. 478 x 2 in [-1, 1] of the crop. */
val atRest: FloatArray by lazy { floats(goldenCases("retarget.json")[0].second["keypoints"]) }

/** The person of the golden vectors: a public-domain photo. */
fun goldenAvatar(): Avatar {
    val golden = shipped.golden()
    val image = golden.numbers("image")
    val pixels = image.size / 3
    val texture = RgbImage(256, 256, ByteArray(image.size) { Math.round(image[it % 3 * pixels + it / 3] * 255).toByte() })
    val source = floats(goldenFile("retarget.json")["source"])
    val landmarks = FloatArray(3 * LANDMARKS) { if (it % 3 < 2) source[it / 3 * 2 + it % 3] else 0.1f }
    return Avatar(
        shipped, texture, RgbImage(256, 256), ByteArray(128 * 128),
        golden.numbers("landmark_features"), golden.numbers("map_features"), landmarks,
    )
}
