package dev.mobilebilayer.core

import java.io.File
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertTrue

/** golden/: what every port of the motion must give. Python wrote it. */
class GoldenTest {
    private val constants = goldenFile("constants.json")
    private val frames = goldenCases("head.json").map { (given, _) -> floats(given["landmarks"]) }

    private fun constant(name: String) = numbers(constants[name])

    private fun number(name: String) = constant(name).single()

    @Test
    fun `every golden file has a test here`() {
        val tested = setOf(
            "constants", "head_crop", "head", "stabilizer", "neutral", "lost_face", "retarget", "ratios", "network_points", "cut",
            "background", "search", "found_face",
        )
        val files = File(ROOT, "golden").list()!!.filter { it.endsWith(".json") }.map { it.removeSuffix(".json") }
        assertEquals(emptySet(), files.toSet() - tested)
    }

    @Test
    fun `constants are those of Python`() {
        fun same(name: String, value: IntArray) = assertContentEquals(constant(name), value.map { it.toDouble() }.toDoubleArray(), name)
        same("mesh", MESH)
        same("template_rigid", faceTemplate().rigid)
        same("part_of_landmark", parts())
        same("mouth_corners", MOUTH_CORNERS)
        same("upper_lips", UPPER_LIPS)
        same("lower_lips", LOWER_LIPS)
        same("outer_upper_lips", OUTER_UPPER_LIPS)
        same("outer_lower_lips", OUTER_LOWER_LIPS)
        for ((name, value) in listOf(
            "eye_corners" to EYE_CORNERS, "upper_lids" to UPPER_LIDS, "lower_lids" to LOWER_LIDS, "irises" to IRISES, "brows" to BROWS,
        )) {
            same(name, value.fold(IntArray(0)) { all, part -> all + part })
        }
        fun near(name: String, vararg value: Double) = assertNear(constant(name), value, 1e-6, name)
        near("crop_up", CROP_UP)
        near("largest_shift", LARGEST_SHIFT)
        near("scale_range", *SCALE_RANGE)
        near("proportion_range", *PROPORTION_RANGE)
        near("shut_lids", SHUT_LIDS)
        near("shut_lips", SHUT_LIPS)
        near("tight_lips", TIGHT_LIPS)
        near("most_shut", MOST_SHUT)
        near("widest_lids", WIDEST_LIDS)
        near("upper_lid", UPPER_LID)
        near("upper_lip", UPPER_LIP)
        near("neutral_hold_s", HOLD_S)
        near("neutral_ease_s", EASE_S)
        near("head_points", *HEAD_POINTS.flatMap { it.map(Float::toDouble) }.toDoubleArray())
        near("torso_points", *TORSO_POINTS.flatMap { it.map(Float::toDouble) }.toDoubleArray())
        near("template_points", *faceTemplate().points.doubles())
        near("template_jaw", *faceTemplate().jaw.doubles())
        for ((key, config) in listOf("stabilizer" to StabilizerConfig(), "stabilizer_file" to FILE)) {
            val parts = listOf(config.pose, config.skin, config.brows, config.mouth, config.lids, config.gaze)
            val wanted = constants[key] as Map<*, *>
            for ((name, part) in listOf("pose", "skin", "brows", "mouth", "lids", "gaze").zip(parts)) {
                val values = wanted[name] as Map<*, *>
                assertNear(
                    numbers(listOf(values["rest_hz"], values["speed_hz"], values["newest"], values["kernel"])),
                    doubleArrayOf(part.restHz, part.speedHz, part.newest) + part.kernel,
                    1e-6,
                    name,
                )
            }
            assertEquals(wanted["gap_s"], config.gapS)
        }
        assertEquals(20.0, number("neutral_angle")) // the neutral's own numbers are private: neutral.json shows them
    }

    @Test
    fun `head crops and keypoints`() {
        for ((given, wanted) in goldenCases("head_crop.json")) {
            val landmarks = floats(given["landmarks"])
            val crop = headCrop(landmarks)
            assertNear(numbers(listOf(wanted["x_px"], wanted["y_px"], wanted["half_px"])), doubleArrayOf(crop.xPx, crop.yPx, crop.halfPx))
            val four = intArrayOf(0, 33, 263, 152).flatMap { listOf(landmarks[2 * it], landmarks[2 * it + 1]) }.toFloatArray()
            val keypoints = crop.toKeypoints(four, 2)
            assertNear(numbers(wanted["keypoints"]), keypoints.doubles())
            assertNear(four.doubles(), crop.toPixels(keypoints, 2).doubles())
        }
    }

    @Test
    fun `head poses and faces`() {
        for ((given, wanted) in goldenCases("head.json")) {
            val motion = takeApart(floats(given["landmarks"]))
            assertNear(numbers(wanted["scale"]), doubleArrayOf(motion.pose.scale), what = "scale")
            assertNear(numbers(wanted["rotation"]), motion.pose.rotation, what = "rotation")
            assertNear(numbers(wanted["shift"]), motion.pose.shift, what = "shift")
            assertNear(numbers(wanted["face_every_tenth"]), motion.face.points(10, 3), what = "face")
        }
    }

    @Test
    fun `a face put together is what was taken apart`() {
        for (landmarks in frames) assertNear(landmarks.doubles(), putTogether(takeApart(landmarks)).doubles(), 1e-4)
    }

    @Test
    fun `the live stabilizer`() {
        val (given, wanted) = goldenCases("stabilizer.json").single()
        val stabilizer = Stabilizer()
        val live = (given["landmarks"] as List<*>).zip(numbers(given["times_s"]).toList()) { landmarks, timeS ->
            putTogether(stabilizer.stabilize(takeApart(floats(landmarks)), timeS)).doubles().points(3, 2)
        }
        live.zip(wanted["live_every_third"] as List<*>) { got, right -> assertNear(numbers(right), got) }
        assertTrue(live.size == 5)
    }

    @Test
    fun `the stabilizer of whole clips`() {
        val (given, wanted) = goldenCases("stabilizer.json").single()
        val frames = (given["landmarks"] as List<*>).map(::floats)
        val track = Track(frames.toTypedArray(), numbers(given["times_s"]), BooleanArray(frames.size) { true }, 384, 384)
        val steady = stabilize(track).toList()
        steady.zip(wanted["file_every_third"] as List<*>) { got, right ->
            assertNear(numbers(right), putTogether(got).doubles().points(3, 2))
        }
        assertEquals(frames.size, steady.size)
    }

    @Test
    fun `a whole clip is as long as before, calmer, and begins anew behind a lost face`() {
        val many = Array(700) { driver.landmarks[it % 198] }
        val times = DoubleArray(700) { it * 0.04 + if (it >= 600) 3 else 0 }
        val found = BooleanArray(700) { it !in 300..309 }
        val steady = stabilize(Track(many, times, found, 384, 384)).map { putTogether(it) }.toList()
        assertEquals(700, steady.size)
        // Alone between two gaps it is as if there were no other frames.
        val alone = stabilize(Track(many.copyOfRange(600, 700), times.copyOfRange(600, 700), BooleanArray(100) { true }, 384, 384))
        assertNear(putTogether(alone.first()).doubles(), steady[600].doubles(), 1e-6)
        assertNear(putTogether(takeApart(many[305])).doubles(), steady[305].doubles(), 1e-6)
        fun tremble(frames: List<FloatArray>) = (1 until frames.size - 1).sumOf { i ->
            (0 until 956 step 7).sumOf { Math.abs(frames[i - 1][it] - 2.0 * frames[i][it] + frames[i + 1][it]) }
        }
        val raw = many.map { putTogether(takeApart(it)) }
        assertTrue(tremble(steady.subList(0, 190)) < 0.6 * tremble(raw.subList(0, 190)))
    }

    @Test
    fun `what is neutral`() {
        for ((given, wanted) in goldenCases("neutral.json")) {
            val neutral = Neutral(given["live"] as Boolean)
            for (landmarks in frames) neutral.add(takeApart(landmarks), 0.04)
            assertNear(numbers(wanted["landmarks_every_third"]), putTogether(neutral.motion()).doubles().points(3, 2))
        }
    }

    @Test
    fun `lost faces`() {
        for ((given, wanted) in goldenCases("lost_face.json")) {
            val (last, neutral) = listOf("last", "neutral").map { takeApart(frames[numbers(given[it]).single().toInt()]) }
            val eased = easeToNeutral(last, neutral, numbers(given["lost_s"]).single())
            assertNear(numbers(wanted["landmarks_every_third"]), putTogether(eased).doubles().points(3, 2))
        }
    }

    @Test
    fun `a driver's motion on a source's face`() {
        val source = floats(goldenFile("retarget.json")["source"])
        val neutral = takeApart(frames[0])
        val one = Retargeter(takeApart(source), takeApart(frames[1])) // with another neutral, to be changed
        one.setNeutral(neutral)
        for ((given, wanted) in goldenCases("retarget.json")) {
            val driving = frames[numbers(given["driver"]).single().toInt()]
            val mode = Mode.valueOf((given["mode"] as String).uppercase())
            assertNear(numbers(wanted["keypoints"]), retarget(source, driving, frames[0], mode).doubles())
            if (mode == Mode.RELATIVE) assertNear(numbers(wanted["keypoints"]), one.retarget(takeApart(driving)).doubles())
        }
    }

    @Test
    fun `how far lids are open`() {
        for ((given, wanted) in goldenCases("ratios.json")) {
            val share = lidShare(numbers(given["now"]).single(), numbers(given["rest"]).single())
            assertNear(numbers(wanted["share"]), doubleArrayOf(share))
        }
    }

    @Test
    fun `the points that networks take`() {
        for ((given, wanted) in goldenCases("network_points.json")) {
            assertNear(numbers(wanted["points"]), networkPoints(floats(given["keypoints"])).doubles())
        }
    }

    private fun picture(rows: Any?): RgbImage {
        val lines = rows as List<*>
        val values = numbers(rows)
        return RgbImage((lines[0] as List<*>).size, lines.size, ByteArray(values.size) { values[it].toInt().toByte() })
    }

    private fun assertPicture(wanted: Any?, got: RgbImage, tolerance: Double, what: String) =
        assertNear(numbers(wanted), DoubleArray(got.pixels.size) { (got.pixels[it].toInt() and 255).toDouble() }, tolerance, what)

    @Test
    fun `squares cut out of a picture`() {
        val file = goldenFile("cut.json")
        val from = picture(file["picture"])
        for ((given, wanted) in goldenCases("cut.json")) {
            val (x, y, half, side) = numbers(listOf("x_px", "y_px", "half_px", "side_px").map { given[it] }).toList()
            assertPicture(wanted["rgb"], Crop(x, y, half).cut(from, side.toInt()), numbers(file["tolerance"]).single(), "half $half: level")
        }
    }

    @Test
    fun `what stands behind a person`() {
        val tolerance = numbers(goldenFile("background.json")["tolerance"]).single()
        val from = picture(goldenFile("cut.json")["picture"])
        for ((given, wanted) in goldenCases("background.json")) {
            val (x, y, radius) = numbers(listOf("x", "y", "radius").map { given[it] }).toList()
            val alpha = FloatArray(from.width * from.height) {
                ((radius + 2 - Math.hypot(it % from.width - x, it / from.width - y)) / 2).coerceIn(0.0, 1.0).toFloat()
            }
            val filled = fillBehind(from, alpha)
            assertPicture(wanted["filled"], filled, tolerance, "filled")
            val side = from.height
            val left = ByteArray(3 * side * side) { filled.pixels[it / (3 * side) * 3 * from.width + it % (3 * side)] }
            val square = RgbImage(side, side, left)
            assertPicture(wanted["blurred_square"], changeBackground("blur", square), tolerance, "blurred")
            val corner = changeBackground("#20a0ff", square).pixels.take(3).map { (it.toInt() and 255).toDouble() }
            assertEquals(numbers(wanted["coloured_corner"]).toList(), corner)
            assertEquals(square, changeBackground("keep", square))
            for (none in listOf("", "#20a0f", "beach.jpg")) assertTrue("#20a0ff" in refusal { changeBackground(none, square) })
        }
    }
}
