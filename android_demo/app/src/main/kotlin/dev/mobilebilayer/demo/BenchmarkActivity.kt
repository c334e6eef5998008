package dev.mobilebilayer.demo

import android.os.Bundle
import android.view.WindowManager
import android.widget.Button
import android.widget.ProgressBar
import android.widget.TextView
import androidx.activity.ComponentActivity
import java.util.concurrent.CountDownLatch
import kotlin.concurrent.thread

/** Measures live mode for a minute or ten, and shows and shares the result. With the extra [SECONDS] it starts at once. */
class BenchmarkActivity : ComponentActivity() {
    private lateinit var view: CompositorView
    private lateinit var message: TextView
    private lateinit var progress: ProgressBar
    private lateinit var buttons: List<Button>
    private lateinit var share: Button
    private var run: BenchmarkRun? = null

    /** For the instrumented test: open until a run that was asked for is done; then one of the other two is there. */
    val done = CountDownLatch(1)

    @Volatile
    var measured: Measured? = null
        private set

    @Volatile
    var failure: Exception? = null
        private set

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        setContentView(R.layout.benchmark)
        view = findViewById(R.id.compositor) as CompositorView
        message = findViewById(R.id.message) as TextView
        progress = findViewById(R.id.progress) as ProgressBar
        share = findViewById(R.id.share) as Button
        buttons = listOf(findViewById(R.id.minute) as Button, findViewById(R.id.sustained) as Button)
        view.onError = ::tell
        buttons[0].setOnClickListener { begin(60) }
        buttons[1].setOnClickListener { begin(600) }
        share.setOnClickListener { measured?.let { share(it.file, "application/json", R.string.share_result) } }
        val seconds = intent.getIntExtra(SECONDS, 0)
        if (seconds > 0) begin(seconds)
    }

    override fun onResume() {
        super.onResume()
        view.onResume()
    }

    override fun onPause() {
        run?.cancelled = true // nothing is drawn any more, so nothing can be measured
        view.onPause()
        super.onPause()
    }

    private fun begin(seconds: Int) {
        val run = BenchmarkRun(applicationContext, view, seconds).also { run = it }
        (buttons + share).forEach { it.isEnabled = false }
        progress.max = seconds
        thread(name = "benchmark") {
            try {
                val got = run.measure { second, frames, heat -> runOnUiThread { show(second, seconds, frames, heat) } }
                measured = got
                runOnUiThread { show(got) }
            } catch (error: Exception) {
                failure = error
                tell(error)
            }
            runOnUiThread { buttons.forEach { it.isEnabled = true } }
            done.countDown()
        }
    }

    private fun show(second: Int, seconds: Int, frames: Int, heat: String) {
        progress.progress = second
        message.text = getString(R.string.benchmark_progress, second, seconds, frames.toFloat(), heat)
    }

    private fun show(got: Measured) {
        share.isEnabled = true
        val stages = got.result.stages
        message.text = getString(
            R.string.benchmark_result, got.result.fps, stages.getValue("frame").p50, stages.getValue("frame").p90,
            stages.getValue("network").p50, stages.getValue("landmarks").p50, got.result.dropped,
            Models.choice(this).notes.joinToString("\n").ifEmpty { got.file.name },
        )
    }

    companion object {
        const val SECONDS = "seconds"
    }
}
