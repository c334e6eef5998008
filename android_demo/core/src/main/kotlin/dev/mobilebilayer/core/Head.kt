package dev.mobilebilayer.core

import kotlin.math.max
import kotlin.math.sqrt

/** In the template's units: 1 is the distance of the outer eye corners; x right, y down, z away from the camera. */
val HEAD_POINTS: Array<FloatArray> = arrayOf(
    floatArrayOf(0f, -1.45f, 0.5f), floatArrayOf(-0.6f, -1.3f, 0.5f), floatArrayOf(0.6f, -1.3f, 0.5f), // hair
    floatArrayOf(-0.95f, -0.9f, 0.7f), floatArrayOf(0.95f, -0.9f, 0.7f),
    floatArrayOf(-1.05f, -0.2f, 1.0f), floatArrayOf(1.05f, -0.2f, 1.0f), // sides, crown
    floatArrayOf(-0.95f, 0.4f, 0.9f), floatArrayOf(0.95f, 0.4f, 0.9f), floatArrayOf(0f, -1.2f, 1.2f),
    floatArrayOf(-0.6f, 1.05f, 0.6f), floatArrayOf(0.6f, 1.05f, 0.6f), floatArrayOf(0f, 1.2f, 0.35f), // neck
)

/** In crop coordinates: shoulders stay where they are when the head moves. */
val TORSO_POINTS: Array<FloatArray> = arrayOf(floatArrayOf(-0.8f, 0.93f), floatArrayOf(0f, 0.98f), floatArrayOf(0.8f, 0.93f))

/** How many points the networks take: mesh, head and torso. */
val POINTS: Int = MESH.size + HEAD_POINTS.size + TORSO_POINTS.size

/**
 * The mean face of many people.
 *
 * [points] 478 x 3, symmetric; units as [HEAD_POINTS]
 * [rigid] indices of landmarks that expressions hardly move
 * [jaw] 478, how far down each landmark goes when the lips part by 1; 0 in the upper face
 */
class FaceTemplate(val points: FloatArray, val rigid: IntArray, val jaw: FloatArray) {
    /** As doubles, and the rows that find a pose: see [fitHead]. */
    internal val doubles = DoubleArray(points.size) { points[it].toDouble() }
    internal val middle = DoubleArray(3) { c -> rigid.sumOf { doubles[3 * it + c] } / rigid.size }
    internal val solver: DoubleArray = pseudoInverse()

    /** (3, rigid): the pseudo-inverse of the rigid points around their middle, by the inverse of a 3 x 3 matrix. */
    private fun pseudoInverse(): DoubleArray {
        val n = rigid.size
        val around = DoubleArray(3 * n) { doubles[3 * rigid[it / 3] + it % 3] - middle[it % 3] }
        val m = DoubleArray(9) { k -> (0 until n).sumOf { around[3 * it + k / 3] * around[3 * it + k % 3] } }
        fun cofactor(r: Int, c: Int): Double {
            val (r1, r2) = (r + 1) % 3 to (r + 2) % 3
            val (c1, c2) = (c + 1) % 3 to (c + 2) % 3
            return m[3 * r1 + c1] * m[3 * r2 + c2] - m[3 * r1 + c2] * m[3 * r2 + c1]
        }
        val determinant = (0..2).sumOf { m[it] * cofactor(0, it) }
        return DoubleArray(3 * n) { k ->
            val (row, point) = k / n to k % n
            (0..2).sumOf { cofactor(it, row) / determinant * around[3 * point + it] }
        }
    }

    companion object {
        private const val RESOURCE = "/face_template.safetensors"

        /** From the bytes of face_template.safetensors. */
        fun load(data: ByteArray, where: String): FaceTemplate {
            val file = Safetensors.load(data, where)
            val remedy = "Copy it again from mobile_bilayer/assets."
            val rigid = file.tensors["rigid"]?.shape ?: IntArray(1)
            return FaceTemplate(
                file.tensor("points", DType.F32, intArrayOf(LANDMARKS, 3), where, remedy).floats,
                file.tensor("rigid", DType.I32, rigid, where, remedy).data as IntArray,
                file.tensor("jaw", DType.F32, intArrayOf(LANDMARKS), where, remedy).floats,
            )
        }

        internal val shipped: FaceTemplate by lazy {
            val data = FaceTemplate::class.java.getResourceAsStream(RESOURCE)?.use { it.readBytes() }
                ?: throw MobileBilayerError("$RESOURCE is not among the app's resources. Build core with mobile_bilayer/assets beside it.")
            load(data, RESOURCE)
        }
    }
}

/** The template shipped with this package: a resource, the same file that Python has. */
fun faceTemplate(): FaceTemplate = FaceTemplate.shipped

/**
 * Weak perspective: picture = scale * (rotation @ template)[:2] + shift.
 *
 * [scale] pixels (or keypoint units) a template unit; [rotation] (3, 3) row by row, template to camera; [shift] x, y.
 * It is a buffer: functions that take `out` fill it anew.
 */
class HeadPose {
    var scale = 1.0
    val rotation = doubleArrayOf(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    val shift = DoubleArray(2)

    /** Become like [other]. */
    fun set(other: HeadPose) {
        scale = other.scale
        other.rotation.copyInto(rotation)
        other.shift.copyInto(shift)
    }

    /** Where a template point goes: x. In float32, as landmarks are. */
    internal fun x(points: DoubleArray, at: Int): Float =
        (scale * (rotation[0] * points[at] + rotation[1] * points[at + 1] + rotation[2] * points[at + 2]) + shift[0]).toFloat()

    internal fun y(points: DoubleArray, at: Int): Float =
        (scale * (rotation[3] * points[at] + rotation[4] * points[at + 1] + rotation[5] * points[at + 2]) + shift[1]).toFloat()

    /** The first two rows, and from them the third, and the scale, as in [nearestRows]' out. */
    internal fun setRows(rows: DoubleArray) {
        rows.copyInto(rotation, 0, 0, 6)
        val (a, b, c) = rows
        val d = rows[3]
        val e = rows[4]
        val f = rows[5]
        rotation[6] = b * f - c * e
        rotation[7] = c * d - a * f
        rotation[8] = a * e - b * d
    }
}

/**
 * A head taken apart: where it is, and the face in its own frame, with its shape and expression.
 *
 * [face] 478 x 3 in the template's units, seen from the front; what depth hides is the template's.
 * It is a buffer, as [HeadPose] is.
 */
class Motion {
    val pose = HeadPose()
    val face = DoubleArray(3 * LANDMARKS)

    /** Become like [other]. */
    fun set(other: Motion) {
        pose.set(other.pose)
        other.face.copyInto(face)
    }
}

/**
 * Least-squares head pose of landmarks (478 points of 2 or 3 numbers), in their unit; z is not used.
 *
 * Lips, brows and chin have no say: what they do moves neither the place nor the size found.
 */
fun fitHead(landmarks: FloatArray, out: HeadPose = HeadPose()): HeadPose {
    val numbers = dimensions(landmarks)
    val template = faceTemplate()
    val rigid = template.rigid
    val n = rigid.size
    val solver = template.solver
    var a = 0.0; var b = 0.0; var c = 0.0; var x = 0.0
    var u = 0.0; var v = 0.0; var w = 0.0; var y = 0.0
    // The solver's rows add up to 0: there is no mean to be taken off before.
    for (i in 0 until n) {
        val px = landmarks[numbers * rigid[i]].toDouble()
        val py = landmarks[numbers * rigid[i] + 1].toDouble()
        val s = solver[i]; val t = solver[n + i]; val r = solver[2 * n + i]
        a += s * px; b += t * px; c += r * px; x += px
        u += s * py; v += t * py; w += r * py; y += py
    }
    val rows = out.rotation
    rows[0] = a; rows[1] = b; rows[2] = c
    rows[3] = u; rows[4] = v; rows[5] = w
    out.scale = nearestRows(rows)
    out.setRows(rows)
    val m = template.middle
    out.shift[0] = x / n - out.scale * (rows[0] * m[0] + rows[1] * m[1] + rows[2] * m[2])
    out.shift[1] = y / n - out.scale * (rows[3] * m[0] + rows[4] * m[1] + rows[5] * m[2])
    return out
}

/**
 * Makes the first six numbers of [rows], two rows of three, orthonormal: the nearest such rows. Returns the mean of the
 * singular values.
 *
 * In closed form, (A A^T)^(-1/2) A: phones have no decomposition at hand.
 */
fun nearestRows(rows: DoubleArray): Double {
    val x = rows[0]; val y = rows[1]; val z = rows[2]
    val u = rows[3]; val v = rows[4]; val w = rows[5]
    val a = x * x + y * y + z * z
    val b = x * u + y * v + z * w
    val d = u * u + v * v + w * w
    val root = sqrt(max(a * d - b * b, 1e-24)) // the product of the singular values
    val total = sqrt(a + d + 2 * root) // their sum
    val p = (d + root) / (total * root)
    val q = -b / (total * root)
    val r = (a + root) / (total * root)
    rows[0] = p * x + q * u; rows[1] = p * y + q * v; rows[2] = p * z + q * w
    rows[3] = q * x + r * u; rows[4] = q * y + r * v; rows[5] = q * z + r * w
    return total / 2
}

/** The face, 478 x 3 in the template's units, without head pose. What depth hides stays the template's. */
fun unposed(landmarks: FloatArray, pose: HeadPose, out: DoubleArray = DoubleArray(3 * LANDMARKS)): DoubleArray {
    val numbers = dimensions(landmarks)
    val template = faceTemplate().doubles
    val r = pose.rotation
    val per = 1 / pose.scale
    for (i in 0 until LANDMARKS) {
        // (landmarks - shift) / scale along the rows that are seen, the template along the one that is not.
        val x = (landmarks[numbers * i] - pose.shift[0]) * per
        val y = (landmarks[numbers * i + 1] - pose.shift[1]) * per
        val z = r[6] * template[3 * i] + r[7] * template[3 * i + 1] + r[8] * template[3 * i + 2]
        out[3 * i] = r[0] * x + r[3] * y + r[6] * z
        out[3 * i + 1] = r[1] * x + r[4] * y + r[7] * z
        out[3 * i + 2] = r[2] * x + r[5] * y + r[8] * z
    }
    return out
}

/** Head pose and face of landmarks (478 points of 2 or 3 numbers), in any unit; [putTogether] is the way back. */
fun takeApart(landmarks: FloatArray, out: Motion = Motion()): Motion {
    fitHead(landmarks, out.pose)
    unposed(landmarks, out.pose, out.face)
    return out
}

/** Landmarks, 478 x 2 in the unit of the pose. */
fun putTogether(motion: Motion, out: FloatArray = FloatArray(2 * LANDMARKS)): FloatArray {
    for (i in 0 until LANDMARKS) {
        out[2 * i] = motion.pose.x(motion.face, 3 * i)
        out[2 * i + 1] = motion.pose.y(motion.face, 3 * i)
    }
    return out
}

/**
 * The points that the networks take, [POINTS] x 2: mesh, head and torso.
 *
 * [landmarks] 478 points of 2 or 3 numbers, in [-1, 1] of the source's crop; [pose] is a buffer for what is fitted
 */
fun networkPoints(landmarks: FloatArray, out: FloatArray = FloatArray(2 * POINTS), pose: HeadPose = HeadPose()): FloatArray {
    val numbers = dimensions(landmarks)
    var at = 0
    for (landmark in MESH) {
        out[at++] = landmarks[numbers * landmark]
        out[at++] = landmarks[numbers * landmark + 1]
    }
    fitHead(landmarks, pose)
    for (i in HEAD_POINTS.indices) {
        out[at++] = pose.x(HEAD, 3 * i)
        out[at++] = pose.y(HEAD, 3 * i)
    }
    for (point in TORSO_POINTS) {
        out[at++] = point[0]
        out[at++] = point[1]
    }
    return out
}

private val HEAD = DoubleArray(3 * HEAD_POINTS.size) { HEAD_POINTS[it / 3][it % 3].toDouble() }
