package dev.mobilebilayer.core

import java.io.File
import java.time.Instant
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.jupiter.api.Assumptions

class BenchmarkTest {
    @Test
    fun `percentiles lie between neighbours as NumPy has them`() {
        // numpy.percentile([4, 1, 3, 2, 10], [50, 90, 99]), .mean(), .std(ddof=1) / .mean()
        val got = Statistics.of(doubleArrayOf(4.0, 1.0, 3.0, 2.0, 10.0))
        assertNear(doubleArrayOf(3.0, 7.6, 9.76, 4.0, 0.883883), doubleArrayOf(got.p50, got.p90, got.p99, got.mean, got.cv), 1e-6)
        assertEquals(Statistics(1, 5.0, 5.0, 5.0, 5.0, 0.0), Statistics.of(doubleArrayOf(5.0)))
        assertTrue("no measurement" in refusal { StageTimes().statistics() })
    }

    @Test
    fun `of many times the latest are kept`() {
        val times = StageTimes(capacity = 4)
        for (i in 1..10) times.add(i.toDouble())
        assertEquals(Statistics.of(doubleArrayOf(7.0, 8.0, 9.0, 10.0)), times.statistics())
    }

    @Test
    fun `frames a second are of whole frames, and told for each second`() {
        val rate = FrameRate()
        assertEquals(0.0, rate.fps)
        var nowMs = 5000L
        repeat(31) { rate.shown(nowMs * 1_000_000).also { nowMs += 50 } } // 20 a second, for 1.5 s
        nowMs += 950
        rate.shown(nowMs * 1_000_000)
        assertEquals(31 / 2.5, rate.fps, 1e-9)
        assertEquals(listOf(20, 11), rate.overTime())
    }

    private val result = BenchmarkResult(
        device = "made by a test", chip = null, os = "none", buildType = "debug", runtime = "executorch 1.5.1",
        toolVersions = mapOf("kotlin" to "2.4.20"), backend = "xnnpack", computeUnit = "cpu", threads = 2, bundle = "none",
        bundleSha256 = "fe".repeat(32), bundleMib = 1.5, precision = "int8", imagePx = 256, warmupCount = 10, iterations = 1800, durationS = 60.0,
        stages = mapOf("network" to Statistics.of(doubleArrayOf(1.0, 2.0, 3.0)), "frame" to Statistics.of(doubleArrayOf(8.0))), fps = 29.97, dropped = 3,
        load = LoadTimes(null, 81.5, 20.0), peakMemoryMib = null, packageMib = 2.0, delegatedOperators = 70,
        undelegatedOperators = mapOf("aten.foo" to "not in the backend"), overTime = listOf(Moment(0, 30, "none", 31.5)),
        energyMj = null, energyMethod = null, repeatSpread = 0.02, repeats = 3, execute = Statistics.of(doubleArrayOf(1.5)),
        firstFrameMs = 150.0, cameraFps = 30.0, undelegatedCount = 2, notMeasured = mapOf("stages_ms.display" to "no screen"),
        warnings = listOf("It was made by a test."), madeAt = Instant.parse("2026-01-31T12:00:00.5Z"),
    )

    @Test
    fun `a result is written with what was not measured as null`() {
        val read = Json.parse(result.toJson(), "result.json") as Map<*, *>
        assertEquals(1L, read["format_version"])
        val wanted = mapOf("count" to 3L, "mean" to 2.0, "p50" to 2.0, "p90" to 2.8, "p99" to 2.98, "cv" to 0.5)
        val stages = read["stages_ms"] as Map<*, *>
        assertEquals(BenchmarkResult.STAGES.toList(), stages.keys.toList())
        assertEquals(wanted, stages["network"])
        assertNull(stages["display"])
        assertEquals("2026-01-31T12:00:00Z", read["made_at"])
        assertTrue(read.containsKey("energy_mj") && read["energy_mj"] == null)
        assertEquals(mapOf("first_ever_ms" to null, "cold_ms" to 81.5, "warm_ms" to 20.0), read["load"])
        assertEquals(listOf(mapOf("second" to 0L, "frames" to 30L, "thermal_state" to "none", "temperature_c" to 31.5)), read["over_time"])
        assertNull(read["chip"])
    }

    @Test
    fun `a result is written for Python to read`() {
        val folder = System.getenv("MOBILE_BILAYER_EXCHANGE")?.let(::File)
        Assumptions.assumeTrue(folder != null, "MOBILE_BILAYER_EXCHANGE names no folder: pytest does")
        File(folder!!, "result_of_kotlin.json").writeText(
            result.copy(bundleSha256 = shipped.sha256, bundleMib = shipped.bytes / 1048576.0).toJson(),
        )
    }

    @Test
    fun `a result that can't be one is refused`() {
        val one = Statistics.of(doubleArrayOf(1.0))
        assertTrue("[gpu]" in refusal { result.copy(stages = mapOf("gpu" to one)) })
        assertTrue("energy" in refusal { result.copy(energyMj = 3.0) })
        assertTrue("npu" in refusal { result.copy(computeUnit = "npu") })
        assertTrue("warm" in refusal { result.copy(overTime = listOf(Moment(0, 30, "warm"))) })
        assertTrue("its rate" in refusal { result.copy(fps = null) })
        assertTrue("0 iterations" in refusal { result.copy(iterations = 0) })
        assertTrue("number" in refusal { result.copy(fps = Double.NaN).toJson() })
    }
}
