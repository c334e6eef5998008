package dev.mobilebilayer.demo

import android.content.Intent
import androidx.test.core.app.ActivityScenario
import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import java.util.concurrent.TimeUnit
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith

/**
 * The benchmark as the driver script starts it: `am instrument -e class dev.mobilebilayer.demo.BenchmarkTest -e seconds 600`. Its result
 * lies in the app's external files, in benchmark/.
 */
@RunWith(AndroidJUnit4::class)
class BenchmarkTest {
    @Test
    fun liveModeIsMeasuredAndItsResultIsWritten() {
        val seconds = InstrumentationRegistry.getArguments().getString("seconds")?.toInt() ?: 60
        val context = InstrumentationRegistry.getInstrumentation().targetContext
        val intent = Intent(context, BenchmarkActivity::class.java).putExtra(BenchmarkActivity.SECONDS, seconds)
        ActivityScenario.launch<BenchmarkActivity>(intent).use { scenario ->
            var activity: BenchmarkActivity? = null
            scenario.onActivity { activity = it }
            val screen = activity!!
            assertTrue("it is not done in time", screen.done.await(seconds + 180L, TimeUnit.SECONDS))
            screen.failure?.let { throw it }
            val measured = screen.measured!!
            assertTrue("no result at ${measured.file}", measured.file.length() > 0)
            assertTrue("only ${measured.result.iterations} frames", measured.result.iterations > seconds)
        }
    }
}
