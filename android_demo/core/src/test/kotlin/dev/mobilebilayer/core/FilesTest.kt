package dev.mobilebilayer.core

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.file.Files
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** JSON and safetensors, the forms that all files have. */
class FilesTest {
    private fun file(header: String, data: ByteArray = ByteArray(0)): ByteArray {
        val text = header.toByteArray()
        val out = ByteBuffer.allocate(8 + text.size + data.size).order(ByteOrder.LITTLE_ENDIAN)
        return out.putLong(text.size.toLong()).put(text).put(data).array()
    }

    @Test
    fun `JSON comes back as it was written`() {
        val value = linkedMapOf(
            "text" to "a \"quote\", a \\ and a\nline, ü",
            "numbers" to listOf(1L, -2L, 0.5, 1e-7),
            "nothing" to null,
            "yes" to true,
            "empty" to emptyList<Any>(),
            "deep" to linkedMapOf("list" to listOf(linkedMapOf("a" to 1L), emptyMap<String, Any>())),
        )
        assertEquals<Any?>(value, Json.parse(Json.write(value), "here"))
    }

    @Test
    fun `what is no JSON is refused by its place`() {
        val texts = listOf(
            "", "{", "[1, 2", "[1,]", "{\"a\": 1,}", "{\"a\": 1, \"a\": 2}", "{a: 1}", "'a'", "\"a", "NaN", "[Infinity]", "-",
            "01", "1.", ".5", "+1",
            "1e999", "tru", "null null", "[1] x", "\"\\x\"", "\"\\u12g4\"", "\"a\nb\"", "[".repeat(100_000), "{\"a\":".repeat(100_000),
        )
        for (text in texts) assertTrue("here is not JSON" in refusal { Json.parse(text, "here") }, text.take(20))
    }

    @Test
    fun `numbers that JSON does not have are not written`() {
        for (value in listOf(Double.NaN, Double.POSITIVE_INFINITY)) assertTrue("number" in refusal { Json.write(mapOf("fps" to value)) })
    }

    @Test
    fun `tensors come back as they were saved`() {
        val tensors = linkedMapOf(
            "wide" to Tensor(DType.F64, intArrayOf(2), doubleArrayOf(1.5, -2.0)),
            "long" to Tensor(DType.I64, intArrayOf(1), longArrayOf(1L shl 40)),
            "floats" to Tensor.of(floatArrayOf(1f, -0.25f, Float.MAX_VALUE, 0f, 1e-40f, 3f), 2, 3),
            "whole" to Tensor(DType.I32, intArrayOf(3), intArrayOf(-1, 0, 7)),
            "short" to Tensor(DType.I16, intArrayOf(1), shortArrayOf(-300)),
            "bytes" to Tensor(DType.U8, intArrayOf(2, 2), byteArrayOf(-1, 0, 1, 2)),
            "none" to Tensor.zeros(0, 4),
            "one" to Tensor(DType.BOOL, intArrayOf(), byteArrayOf(1)),
        )
        val back = Safetensors.load(Safetensors(tensors, mapOf("who" to "we")).save(), "here")
        assertEquals(mapOf("who" to "we"), back.metadata)
        assertEquals(tensors.keys, back.tensors.keys)
        for ((name, tensor) in tensors) {
            val got = back.tensors.getValue(name)
            assertEquals(tensor.dtype, got.dtype)
            assertContentEquals(tensor.shape, got.shape)
            assertEquals(Tensor(tensor.dtype, tensor.shape, tensor.data).text(), got.text(), name)
        }
    }

    private fun Tensor.text() = when (val data = data) {
        is ByteArray -> data.toList()
        is ShortArray -> data.toList()
        is IntArray -> data.toList()
        is LongArray -> data.toList()
        is FloatArray -> data.toList()
        is DoubleArray -> data.toList()
        else -> error(data)
    }.toString()

    @Test
    fun `half-precision numbers are read as what they are`() {
        val bits = intArrayOf(0x0000, 0x8000, 0x3c00, 0xc000, 0x7bff, 0x0001, 0x03ff, 0x0400, 0x7c00, 0xfc00, 0x3555)
        val wanted = floatArrayOf(
            0f, -0f, 1f, -2f, 65504f, 5.9604645e-8f, 6.097555e-5f, 6.1035156e-5f, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY,
            0.33325195f,
        )
        for (i in bits.indices) assertEquals(wanted[i], Safetensors.halfToFloat(bits[i].toShort().toInt()))
        assertTrue(Safetensors.halfToFloat(0x7e00).isNaN())
    }

    @Test
    fun `files that attack are refused in words`() {
        fun tensor(dtype: String, shape: String, offsets: String) = """{"a":{"dtype":"$dtype","shape":$shape,"data_offsets":$offsets}}"""
        val four = ByteArray(4)
        val second = tensor("U8", "[4]", "[2,6]").drop(1).replace("\"a\"", "\"b\"")
        val overlapping = tensor("U8", "[4]", "[0,4]").dropLast(1) + "," + second
        val files = listOf(
            ByteArray(0), ByteArray(7), ByteArray(8), ByteArray(64) { -1 }, "PK and then nothing".toByteArray(),
            file("[]"), file("{}", four), file("""{"a":1}"""), file("""{"__metadata__":{"a":1}}"""), file("""{"__metadata__":[]}"""),
            file(tensor("F32", "[1]", "[0,8]"), four), file(tensor("F32", "[1]", "[4,8]"), four), file(tensor("F32", "[1]", "[4,0]"), four),
            file(tensor("F32", "[2]", "[0,4]"), four), file(tensor("F32", "[-1]", "[0,4]"), four),
            file(tensor("F32", "[1.0]", "[0,4]"), four),
            file(tensor("F32", "[4294967296,4294967296]", "[0,4]"), four), file(tensor("F32", "[65536,65536,0]", "[0,4]"), four),
            file(tensor("F32", "[2147483647,2147483647,4]", "[0,4]"), four), file(tensor("Q4", "[1]", "[0,4]"), four),
            file(tensor("F32", "[1]", "[0,4]"), ByteArray(8)), file(tensor("F32", "[1]", "[4,8]"), ByteArray(8)),
            file(overlapping, ByteArray(6)),
        )
        for (data in files) assertTrue("here" in refusal { Safetensors.load(data, "here") })
    }

    @Test
    fun `whatever byte is changed the golden file loads or is refused in words`() {
        val data = File(SHIPPED, "golden.safetensors").readBytes()
        val random = Random(1)
        repeat(300) {
            val spoilt = data.copyOf().also { it[random.nextInt(1200)] = random.nextInt().toByte() }
            try {
                Safetensors.load(spoilt, "here")
            } catch (_: MobileBilayerError) {
            }
        }
        for (length in listOf(0, 8, 500, data.size - 1)) refusal { Safetensors.load(data.copyOf(length), "here") }
    }
}

/** Bundles: the shipped one, and such as are none. */
class BundleTest {
    private fun contents(): MutableMap<String, ByteArray> = SHIPPED.listFiles()!!.associate { it.name to it.readBytes() }.toMutableMap()

    private fun manifest(): MutableMap<String, Any?> {
        val values = Json.parse(File(SHIPPED, "manifest.json").readText(), "manifest.json") as Map<*, *>
        return values.entries.associateTo(linkedMapOf()) { it.key as String to it.value }
    }

    private fun open(files: Map<String, ByteArray>) = Bundle.open("my bundle") { files[it] }

    private fun readWith(change: (MutableMap<String, Any?>) -> Unit) =
        Manifest.fromJson(Json.write(manifest().also(change)), "my bundle")

    private fun openWith(change: (MutableMap<String, Any?>) -> Unit) =
        open(contents().also { files -> files["manifest.json"] = Json.write(manifest().also(change)).toByteArray() })

    @Test
    fun `the shipped bundle opens and says what it is`() {
        val manifest = shipped.manifest
        assertEquals(listOf("S", "int8", "xnnpack"), listOf(manifest.size, manifest.precision, manifest.backend))
        assertEquals(listOf(1, 4, 64, 64), manifest.methods.getValue("render_layers").outputs[0].shape)
        assertTrue(shipped.card.isNotBlank())
        assertEquals(StabilizerConfig(), manifest.stabilizer)
    }

    @Test
    fun `a zip of the files or of their folder is a bundle`() {
        for (prefix in listOf("", "student-S/")) {
            val path = Files.createTempFile("bundle", ".zip").toFile()
            ZipOutputStream(path.outputStream()).use { zip ->
                for ((name, data) in contents()) {
                    zip.putNextEntry(ZipEntry(prefix + name))
                    zip.write(data)
                }
            }
            assertEquals(shipped.manifest, Bundle.open(path).manifest)
            path.delete()
        }
    }

    @Test
    fun `what is no bundle is refused by its name`() {
        val file = Files.createTempFile("photo", ".jpg").toFile()
        val folder = Files.createTempDirectory("empty").toFile()
        for (data in listOf("", "hello", "PK\u0003\u0004 and then nothing")) {
            file.writeText(data)
            assertTrue(file.path in refusal { Bundle.open(file) })
        }
        assertTrue("manifest.json is missing" in refusal { Bundle.open(folder) })
        file.delete()
        folder.delete()
        assertTrue("does not exist" in refusal { Bundle.open(folder) })
    }

    @Test
    fun `a file that is missing or was changed is refused by its name`() {
        for (name in contents().keys - "manifest.json") {
            assertTrue("$name is missing" in refusal { open(contents() - name) })
            val changed = contents().also { it[name] = it.getValue(name) + 1 }
            assertTrue("$name has sha256" in refusal { open(changed) })
        }
    }

    @Test
    fun `a newer bundle asks for an update and an older one is read as this version`() {
        assertTrue("format version 3; this reader knows 1 to 2. Update" in refusal { openWith { it["format_version"] = 3L } })
        val old = openWith { values ->
            val points = values.remove("template_points") as List<*>
            values.remove("stabilizer")
            values["format_version"] = 1L
            values["rigid_points"] = (values["rigid"] as List<*>).map { points[(it as Long).toInt()] }
        }
        assertEquals(shipped.manifest.copy(stabilizer = StabilizerConfig()), old.manifest)
        assertTrue(
            "rigid_points" in refusal {
                openWith { values ->
                    values["format_version"] = 1L
                    values["rigid_points"] = (values["rigid"] as List<*>).map { listOf(0.0, 0.0, 0.0) }
                }
            },
        )
    }

    @Test
    fun `every value of the manifest has its kind`() {
        for (key in manifest().keys - "format_version") {
            for (wrong in listOf(null, 17L, "text", true, emptyMap<String, Any>(), listOf("x"))) {
                if (wrong is String && manifest()[key] is String) continue
                if (wrong is Long && key in setOf("image_px", "crop_up")) continue
                assertTrue("manifest.json" in refusal { readWith { it[key] = wrong } }, "$key: $wrong")
            }
            assertTrue("lacks $key" in refusal { readWith { it.remove(key) } })
        }
        assertTrue("has unknown extra" in refusal { readWith { it["extra"] = 1L } })
        assertTrue("image_px is 512" in refusal { readWith { it["image_px"] = 512L } })
        assertTrue("is no plain file name" in refusal { readWith { it["sha256"] = mapOf("../evil" to "0".repeat(64)) } })
        assertTrue("64 hex digits" in refusal { readWith { it["sha256"] = mapOf("evil" to "0".repeat(63)) } })
        assertTrue("methods are [forward]" in refusal { readWith { it["methods"] = mapOf("forward" to 1L) } })
        assertTrue("is not JSON" in refusal { open(contents().also { it["manifest.json"] = "{".toByteArray() }) })
    }

    @Test
    fun `a program made for other points is refused`() {
        val message = refusal { openWith { it["mesh"] = (it["mesh"] as List<*>).let { mesh -> listOf(mesh[1], mesh[0]) + mesh.drop(2) } } }
        assertTrue("mesh is not what this version computes" in message)
        assertTrue("crop_up is not" in refusal { openWith { it["crop_up"] = 0.25 } })
    }

    @Test
    fun `what computes as the student did is verified and what does not is named`() {
        val errors = shipped.verify(shipped.network(GoldenProgram()))
        assertEquals(Bundle.CHECKED, errors.keys.toList())
        assertEquals(0f, errors.getValue("flow"))
        val moved = object : Program by GoldenProgram() {
            private val golden = GoldenProgram()
            override fun execute(method: String, inputs: Array<Tensor>, outputs: Array<Tensor>) {
                golden.execute(method, inputs, outputs)
                if (method == "render_layers") outputs[0].floats[0] += 3 * 2 / 256f // three pixels of flow, of a mask it would pass
            }
        }
        assertTrue("flow is" in refusal { shipped.verify(shipped.network(moved)) })
        val broken = object : Program by GoldenProgram() {
            override fun execute(method: String, inputs: Array<Tensor>, outputs: Array<Tensor>) = outputs[0].floats.fill(Float.NaN)
        }
        assertTrue("landmark_features is NaN" in refusal { shipped.verify(shipped.network(broken)) })
    }
}

class AvatarTest {
    private val made = goldenAvatar()

    @Test
    fun `an avatar comes back as it was saved, and carries the tag`() {
        val data = made.save()
        val back = Avatar.load(data, "me.avatar", shipped)
        assertContentEquals(made.texture.pixels, back.texture.pixels)
        assertContentEquals(made.background.pixels, back.background.pixels)
        assertContentEquals(made.alpha, back.alpha)
        assertContentEquals(made.landmarkFeatures, back.landmarkFeatures)
        assertContentEquals(made.mapFeatures, back.mapFeatures)
        assertContentEquals(made.sourceLandmarks, back.sourceLandmarks)
        assertTrue("AI-generated" in Safetensors.load(data, "me.avatar").metadata.getValue("content"))
    }

    @Test
    fun `avatars of Python are read, and written back for it`() {
        val folder = exchange()
        val avatar = Avatar.load(File(folder, "from_python.avatar").readBytes(), "from_python.avatar", shipped)
        File(folder, "from_kotlin.avatar").writeBytes(avatar.save())
    }

    @Test
    fun `a whole photo is cut and its background filled, for Python to compare`() {
        val folder = exchange()
        val given = Safetensors.load(File(folder, "photo.safetensors").readBytes(), "photo.safetensors").tensors
        val photo = given.getValue("rgb").let { RgbImage(it.shape[1], it.shape[0], it.bytes) }
        val texture = headCrop(given.getValue("landmarks").floats).cut(photo)
        val background = fillBehind(texture, grown(given.getValue("alpha").floats, 128, 256))
        val made = mapOf("texture" to texture, "background" to background)
        val tensors = made.mapValues { (_, picture) -> Tensor(DType.U8, intArrayOf(256, 256, 3), picture.pixels) }
        File(folder, "photo_of_kotlin.safetensors").writeBytes(Safetensors(tensors).save())
    }

    @Test
    fun `a whole live run with a lost face, for Python to compare`() {
        val folder = exchange()
        val avatar = Avatar.load(File(folder, "from_python.avatar").readBytes(), "from_python.avatar", shipped)
        val follower = Follower()
        var renderer: Renderer? = null
        val moved = driver.landmarks.indices.flatMap { i ->
            val motion = follower.follow(driver.landmarks[i].takeIf { i !in 60..95 }, driver.timesS[i])!!
            val neutral = follower.neutral!!
            val drawn = renderer?.also { it.setNeutral(neutral) } ?: Renderer(avatar, shipped.network(GoldenProgram()), neutral)
            renderer = drawn
            drawn.move(motion).toList()
        }
        val tensor = Tensor.of(moved.toFloatArray(), driver.landmarks.size, LANDMARKS, 2)
        File(folder, "run_of_kotlin.safetensors").writeBytes(Safetensors(mapOf("moved" to tensor)).save())
    }

    private fun changed(name: String? = null, tensor: Tensor? = null, vararg words: Pair<String, String>): String {
        val file = Safetensors.load(made.save(), "x")
        val tensors = if (name == null) file.tensors else if (tensor == null) file.tensors - name else file.tensors + (name to tensor)
        return refusal { Avatar.load(Safetensors(tensors, file.metadata + words).save(), "me.avatar", shipped) }
    }

    @Test
    fun `what is no avatar of this student is refused in words`() {
        assertTrue("is not an avatar" in changed(words = arrayOf("format" to "mobile_bilayer track")))
        assertTrue("format version 2" in changed(words = arrayOf("version" to "2")))
        assertTrue("student feed" in changed(words = arrayOf("student" to "feed")))
        assertTrue("texture is missing" in changed("texture"))
        assertTrue("texture is (1) F32; it must be (256, 256, 3) U8" in changed("texture", Tensor.zeros(1)))
        val none = Tensor.of(FloatArray(made.mapFeatures.size) { Float.NaN }, 1, 32, 32, 32)
        assertTrue("map_features holds what is not a number" in changed("map_features", none))
        assertTrue("source_landmarks: Landmarks lie between" in changed("source_landmarks", Tensor.zeros(478, 3)))
        assertTrue("me.avatar" in refusal { Avatar.load("hello".toByteArray(), "me.avatar", shipped) })
    }

    @Test
    fun `on the neutral frame the avatar's points are those of its photo`() {
        val program = GoldenProgram()
        val neutral = takeApart(driver.landmarks[52])
        val renderer = Renderer(made, shipped.network(program), neutral)
        val moved = renderer.move(neutral)
        assertNear(atRest.doubles(), moved.doubles())
        val layers = renderer.layers(moved, Layers(shipped.manifest))
        assertContentEquals(shipped.golden().numbers("layers_a"), layers.a.floats)
        assertEquals(1, program.calls)
    }

    @Test
    fun `an avatar of a photo has its head crop and what the network gives`() {
        val size = 400
        val random = Random(3)
        val photo = RgbImage(size, size, random.nextBytes(3 * size * size))
        val landmarks = driver.landmarks[52]
        val program = GoldenProgram()
        val avatar = shipped.avatar(photo, landmarks, shipped.network(program))
        val crop = headCrop(landmarks)
        assertContentEquals(crop.cut(photo).pixels, avatar.texture.pixels)
        assertContentEquals(crop.toKeypoints(landmarks), avatar.sourceLandmarks)
        assertContentEquals(shipped.golden().numbers("map_features"), avatar.mapFeatures)
        assertTrue(avatar.alpha.any { it.toInt() == -1 } && avatar.alpha.any { it.toInt() in 0..10 })
        assertTrue("3 are needed" in refusal { shipped.avatar(photo, FloatArray(956) { it.toFloat() }, shipped.network(program)) })
        assertTrue("468" in refusal { shipped.avatar(photo, FloatArray(3 * 468) { it.toFloat() }, shipped.network(program)) })
        assertTrue("not a number" in refusal { shipped.avatar(photo, FloatArray(3 * 478) { Float.NaN }, shipped.network(program)) })
    }
}

class TrackTest {
    private val data = File(ROOT, "mobile_bilayer/assets/driving.track").readBytes()

    @Test
    fun `the shipped driver is read`() {
        assertEquals(198, driver.landmarks.size)
        assertEquals(384, driver.width)
        assertTrue(driver.found.all { it })
        assertEquals(0.04, driver.timesS[1] - driver.timesS[0], 1e-9)
        val wanted = numbers(goldenCases("head.json")[0].first["landmarks"])
        val got = DoubleArray(wanted.size) { driver.landmarks[52][it / 2 * 3 + it % 2].toDouble() }
        assertNear(wanted, got)
    }

    @Test
    fun `what is no track is refused in words`() {
        fun changed(vararg words: Pair<String, String>, change: (MutableMap<String, Tensor>) -> Unit = {}): String {
            val file = Safetensors.load(data, "x")
            return refusal { Track.load(Safetensors(file.tensors.toMutableMap().also(change), file.metadata + words).save(), "talk.track") }
        }
        assertTrue("not a track" in changed("format" to "x"))
        assertTrue("version 2" in changed("version" to "2"))
        assertTrue("step_px is '1e9'" in changed("step_px" to "1e9"))
        assertTrue("found is missing" in changed { it.remove("found") })
        assertTrue("times do not grow" in changed { it["times_s"] = Tensor(DType.F64, intArrayOf(198), DoubleArray(198)) })
        assertTrue("no pixels" in changed("step_px" to "99999/1"))
        assertFailsWith<MobileBilayerError> { Track.load(ByteArray(10), "talk.track") }
    }

    @Test
    fun `a clip's neutral looks ahead and has a calm face`() {
        val neutral = neutralOf(driver)
        assertTrue(lipOpening(neutral.face) < 0.1 && openness(neutral.face) > 0.1)
        val none = Track(driver.landmarks, driver.timesS, BooleanArray(198), 384, 384)
        assertTrue("no frame in which a face" in refusal { neutralOf(none) })
    }
}
