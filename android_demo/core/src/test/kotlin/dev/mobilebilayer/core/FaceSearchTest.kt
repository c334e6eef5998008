package dev.mobilebilayer.core

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertNull
import kotlin.test.assertTrue

/** Where a face is looked for in a photo: the plan is Python's, and so is what comes of it. */
class FaceSearchTest {
    private fun face(left: Float, top: Float, sidePx: Float): FloatArray {
        val crop = headCrop(driver.landmarks[52])
        val points = crop.toKeypoints(driver.landmarks[52])
        val size = faceSize(points)
        return FloatArray(points.size) {
            when (it % 3) {
                0 -> (points[it] / size + 0.5f) * sidePx + left
                1 -> (points[it] / size + 0.2f) * sidePx + top
                else -> points[it] / size * sidePx
            }
        }
    }

    /** A landmarker as MediaPipe's: it sees what lies whole in a window, with room, and is a tenth of it at least. */
    private class Landmarker(vararg val faces: FloatArray) {
        val looks = ArrayList<FaceWindow>()

        fun look(window: FaceWindow): List<FloatArray> {
            looks += window
            return faces.filter { points ->
                val room = faceSize(points) / 4
                val x = points.filterIndexed { i, _ -> i % 3 == 0 }
                val y = points.filterIndexed { i, _ -> i % 3 == 1 }
                faceSize(points) >= 0.1f * maxOf(window.width, window.height) &&
                    x.min() - room >= window.left && x.max() + room <= window.left + window.width &&
                    y.min() - room >= window.top && y.max() + room <= window.top + window.height
            }.map { FaceWindow(-window.left, -window.top, 1, 1).back(it.copyOf()) }
        }
    }

    @Test
    fun `the plan is the one of Python`() {
        for ((given, wanted) in goldenCases("search.json")) {
            fun whole(name: String) = (given[name] as Number).toInt()
            val windows = numbers(wanted["windows"]).map { it.toInt() }.chunked(4) { (l, t, w, h) -> FaceWindow(l, t, w, h) }
            val plan = searchPlan(whole("width"), whole("height"), whole("levels"))
            assertEquals(windows, plan.flatten(), "$given")
            assertEquals(numbers(wanted["counts"]).toList(), plan.map { it.size.toDouble() }, "$given")
        }
    }

    @Test
    fun `where it is looked again, how large a face is and how it is turned are as in Python`() {
        val frames = goldenCases("head.json").map { (given, _) -> floats(given["landmarks"]) }
        val turns = HashSet<Int>()
        for ((given, wanted) in goldenCases("found_face.json")) {
            var points = frames[(given["driver"] as Number).toInt()]
            repeat((given["quarters"] as Number).toInt()) {
                val before = points
                points = FloatArray(before.size) { if (it % 2 == 0) -before[it + 1] else before[it - 1] }
            }
            val (left, top, side) = numbers(wanted["window"]).map { it.toInt() }
            assertEquals(FaceWindow(left, top, side, side), FaceWindow.around(points), "$given")
            assertNear(numbers(wanted["face_size"]), doubleArrayOf(faceSize(points).toDouble()), 1e-3)
            assertEquals((wanted["turn"] as Number).toInt(), turnOf(points), "$given")
            turns += turnOf(points)
        }
        assertEquals(setOf(0, 90, 180, 270), turns)
    }

    @Test
    fun `PO5 a face that fills its photo is found with a border, and a tiny one in tiles, where they are`() {
        val filling = face(10f, 15f, 200f)
        val tight = Landmarker(filling)
        assertNear(filling.doubles(), findFace(220, 240, tight::look)!!.doubles(), 1e-3)
        assertEquals(2, tight.looks.size)
        val small = face(1500f, 700f, 40f)
        val large = Landmarker(small)
        assertNear(small.doubles(), findFace(2048, 1152, large::look)!!.doubles(), 1e-3)
        assertEquals(FaceWindow.around(small), large.looks.last())
    }

    @Test
    fun `PO5 what only a tile takes for a face is none, and the largest of several is taken`() {
        val small = face(1500f, 700f, 40f)
        val landmarker = Landmarker(small)
        val pattern = face(100f, 100f, 80f)
        val found = findFace(2048, 1152) { window ->
            val isTile = window.width == 288 && window.left <= 100 && window.top <= 100
            landmarker.look(window) + if (isTile) listOf(pattern.copyOf()) else emptyList()
        }
        assertNear(small.doubles(), found!!.doubles(), 1e-3)
        assertTrue(FaceWindow.around(pattern) in landmarker.looks) // it was looked at again

        val (near, far) = face(300f, 200f, 250f) to face(50f, 50f, 120f)
        assertNear(near.doubles(), findFace(640, 480, Landmarker(far, near)::look)!!.doubles(), 1e-3)
    }

    @Test
    fun `PO5 without a face every part is looked at once, and there is none`() {
        val nobody = Landmarker()
        assertNull(findFace(1024, 768, nobody::look))
        assertEquals(searchPlan(1024, 768).flatten(), nobody.looks)
        assertNull(findFace(80, 60, Landmarker()::look))
    }
}
