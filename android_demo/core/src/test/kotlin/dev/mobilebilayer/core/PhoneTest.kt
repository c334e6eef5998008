package dev.mobilebilayer.core

import java.io.File
import java.io.RandomAccessFile
import kotlin.math.abs
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertSame
import kotlin.test.assertTrue

/** What an app's shell asks of core beside the frames themselves. */
class PhoneTest {
    private fun bundleFor(backend: String): Bundle {
        val manifest = File(SHIPPED, "manifest.json").readText()
            .replace("\"backend\": \"xnnpack\"", "\"backend\": \"$backend\"")
            .replace("\"name\": \"student-S-256-int8-xnnpack\"", "\"name\": \"for $backend\"")
        return Bundle.open(backend) { if (it == "manifest.json") manifest.toByteArray() else shipped.contents[it] }
    }

    private val all = listOf(bundleFor("xnnpack"), bundleFor("vulkan"), bundleFor("qnn"))

    @Test
    fun `the best bundle that the runtime knows and that starts is taken, and people are told why no better one`() {
        val every = setOf("XnnpackBackend", "VulkanBackend", "QnnBackend")
        val best = BundleChoice.choose(all, every) { it.manifest.backend }
        assertEquals("qnn" to emptyList(), best.running to best.notes)
        assertSame(all[2], best.bundle)
        val usual = BundleChoice.choose(all, setOf("XnnpackBackend", "VulkanBackend")) {
            if (it.manifest.backend == "vulkan") throw MobileBilayerError("flow is 0.3 off. Use another.") else it.manifest.backend
        }
        assertEquals("xnnpack", usual.running)
        assertEquals(
            listOf(
                "for qnn: this app's runtime has no qnn (it has VulkanBackend, XnnpackBackend).",
                "for vulkan: flow is 0.3 off. Use another.",
            ),
            usual.notes,
        )
    }

    @Test
    fun `if no bundle runs all the reasons are told`() {
        val told = refusal { BundleChoice.choose(all + bundleFor("mps"), setOf("Other")) { it } }
        assertTrue(listOf("for qnn", "for vulkan", "for xnnpack", "for mps").all { it in told }, told)
        assertTrue("There is none" in refusal { BundleChoice.choose(emptyList(), setOf("XnnpackBackend")) { it } })
    }

    @Test
    fun `BE3 a hot phone looks at fewer frames and never at none`() {
        val wanted = listOf(-1 to 60, 0 to 60, 1 to 60, 2 to 20, 3 to 15, 4 to 10, 5 to 10, 6 to 10)
        for (cameraFps in listOf(60, 30)) {
            for ((heat, fps) in wanted) {
                val pacer = FramePacer().also { it.heat = heat }
                val times = (0 until 10 * cameraFps).map { it * 1_000_000_000L / cameraFps + (it * 7919 % 5) * 500_000 } // 0 to 2 ms late
                val admitted = times.filter { pacer.admit(it) }
                val rate = admitted.size / 10.0
                assertTrue(abs(rate - minOf(fps, cameraFps)) <= 0.11, "heat $heat at $cameraFps: $rate")
                assertEquals(times.size.toLong() - admitted.size, pacer.spared)
            }
        }
    }

    @Test
    fun `BE3 a phone that cooled down has all frames again, and a pause leaves no burst`() {
        val pacer = FramePacer().also { it.heat = 4 }
        val wanted = listOf(0L, 80, 176) // ten a second, each as near to its time as the frames come
        for (begin in listOf(0L, 60_000)) assertEquals(wanted, (0L..176 step 16).filter { pacer.admit((begin + it) * 1_000_000) })
        pacer.heat = 1
        assertTrue((0..11).all { pacer.admit(61_000_000_000 + it * 16_000_000L) })
        assertEquals(listOf("unknown", "none", "severe", "shutdown", "unknown"), listOf(-1, 0, 3, 6, 7).map(FramePacer::name))
    }

    @Test
    fun `a frame's own stamp counts if it is of our clock, as the first frame decides`() {
        val same = CaptureClock()
        assertEquals(95, same.capturedNs(95, 100))
        assertEquals(105, same.capturedNs(105, 700_000_000)) // late itself, but of the clock
        assertEquals(800_000_000, same.capturedNs(900_000_000, 800_000_000)) // never ahead of now
        val other = CaptureClock()
        assertEquals(100, other.capturedNs(7_000_000_000, 100)) // of a clock that goes on in a night's sleep
        assertEquals(200, other.capturedNs(195, 200))
        val earlier = CaptureClock()
        assertEquals(3_000_000_000, earlier.capturedNs(5, 3_000_000_000))
    }

    @Test
    fun `texels have the channels of each pixel beside each other`() {
        val texels = Texels(3, 2)
        val got = texels.of(floatArrayOf(1f, 2f, 3f, 4f, 10f, 20f, 30f, 40f, 100f, 200f, 300f, 400f))
        assertTrue(got.isDirect)
        val read = FloatArray(12).also { got.get(it) }
        assertContentEquals(floatArrayOf(1f, 10f, 100f, 2f, 20f, 200f, 3f, 30f, 300f, 4f, 40f, 400f), read)
        assertSame(got, texels.of(FloatArray(12)))
        assertEquals(12, got.remaining())
    }

    @Test
    fun `a picture shown as a camera's frame comes back, and a part of it as that part`() {
        // Areas of 4 x 4, as chroma is shared by 2 x 2.
        val rgb = RgbImage(20, 12)
        for (i in 0 until 20 * 12) {
            for (c in 0..2) rgb.pixels[3 * i + c] = ((i % 20 / 4 * 45 + i / 20 / 4 * 60 * c + 20) % 256).toByte()
        }
        val frame = YuvImage.of(rgb)
        val whole = YuvConverter().toRgba(frame, 0)
        for (i in 0 until 20 * 12) {
            for (c in 0..2) {
                val apart = abs((whole.pixels[4 * i + c].toInt() and 255) - (rgb.pixels[3 * i + c].toInt() and 255))
                assertTrue(apart <= 2, "pixel $i, channel $c is $apart off")
            }
        }
        val part = YuvConverter().toRgba(frame.cropped(4, 2, 10, 8), 90)
        assertEquals(8 to 10, part.width to part.height)
        val corner = 4 * (9 * 20 + 4) // its lower left becomes the upper left
        assertContentEquals(whole.pixels.copyOfRange(corner, corner + 4), part.pixels.copyOf(4))
    }

    private fun box(type: String, vararg parts: ByteArray): ByteArray {
        val size = 8 + parts.sumOf { it.size }
        return byteArrayOf((size shr 24).toByte(), (size shr 16).toByte(), (size shr 8).toByte(), size.toByte()) +
            type.toByteArray() + parts.fold(ByteArray(0)) { all, part -> all + part }
    }

    private val ftyp = box("ftyp", "isom".toByteArray(), ByteArray(4))
    private val frames = box("mdat", ByteArray(1000) { it.toByte() })
    private val header = box("mvhd", ByteArray(100))
    private val place = box("xyz ", ByteArray(6))

    private fun tagged(vararg boxes: ByteArray): ByteArray {
        val file = File.createTempFile("tagged", ".mp4")
        try {
            file.writeBytes(boxes.fold(ByteArray(0)) { all, box -> all + box })
            tagMp4(file)
            return file.readBytes()
        } finally {
            file.delete()
        }
    }

    private fun ByteArray.has(words: String) = String(this, Charsets.ISO_8859_1).contains(words)

    @Test
    fun `a tag is written into the index behind the frames, and no other byte changes`() {
        val before = ftyp + frames
        val got = tagged(ftyp, frames, box("moov", header, box("udta", place)))
        assertContentEquals(before, got.copyOf(before.size))
        assertTrue(got.has(AI_GENERATED) && got.has("mvhd") && got.has("xyz "))
        assertFalse(got.has("free"))
        // The index fills the rest of the file.
        val size = RandomAccessFile(File.createTempFile("size", ""), "rw").use { file ->
            file.write(got, before.size, 4)
            file.seek(0)
            file.readInt()
        }
        assertEquals(got.size - before.size, size)
    }

    @Test
    fun `an index before the frames becomes free space, so that no frame moves`() {
        val moov = box("moov", header)
        val got = tagged(ftyp, moov, frames)
        assertContentEquals(frames, got.copyOfRange(ftyp.size + moov.size, ftyp.size + moov.size + frames.size))
        assertEquals("free", String(got, ftyp.size + 4, 4))
        assertEquals("moov", String(got, ftyp.size + moov.size + frames.size + 4, 4))
    }

    @Test
    fun `a file that was tagged before has one tag`() {
        val file = File.createTempFile("twice", ".mp4")
        file.writeBytes(ftyp + frames + box("moov", header))
        tagMp4(file, "first words")
        val once = file.length()
        tagMp4(file, "other words")
        assertEquals(once, file.length())
        assertFalse(file.readBytes().has("first words"))
        file.delete()
    }

    @Test
    fun `a large frame box, and one up to the file's end, are read`() {
        val large = byteArrayOf(0, 0, 0, 1) + "mdat".toByteArray() + byteArrayOf(0, 0, 0, 0, 0, 0, 0, 24) + ByteArray(8)
        assertTrue(tagged(ftyp, large, box("moov", header)).has(AI_GENERATED))
        val open = ByteArray(4) + "mdat".toByteArray() + ByteArray(50)
        assertTrue(tagged(ftyp, box("moov", header), open).has(AI_GENERATED))
    }

    @Test
    fun `videos of Python are tagged, for it to read`() {
        for (name in listOf("index_last.mp4", "index_first.mp4")) {
            tagMp4(File(exchange(), name).copyTo(File(exchange(), "tagged_$name"), overwrite = true))
        }
    }

    @Test
    fun `what is no whole video is refused and left as it was`() {
        val bad = listOf(
            ByteArray(0) to "0 indices",
            ftyp + frames to "0 indices",
            box("moov", header) + frames to "begins with 'moov'",
            ftyp + box("moov", header) + box("moov", header) to "2 indices",
            ftyp + frames.copyOf(500) to "'mdat' at 16 has 1008 of 500 bytes",
            ftyp + box("moov", header, byteArrayOf(0, 0, 1, 0)) to "4 bytes are left over",
            "not a video at all".toByteArray() to "bytes",
        )
        for ((content, why) in bad) {
            val file = File.createTempFile("bad", ".mp4")
            file.writeBytes(content)
            val told = refusal { tagMp4(file) }
            assertTrue(why in told, told)
            assertContentEquals(content, file.readBytes())
            file.delete()
        }
        assertTrue("could not be tagged" in refusal { tagMp4(File("/nowhere/there.mp4")) })
    }
}
