package dev.mobilebilayer.demo

import android.Manifest
import android.app.AlertDialog
import android.content.Context
import android.content.Intent
import android.content.pm.PackageManager
import android.hardware.display.DisplayManager
import android.net.Uri
import android.os.Bundle
import android.os.Handler
import android.os.Looper
import android.provider.Settings
import android.view.Display
import android.view.Surface
import android.view.View
import android.view.ViewGroup
import android.view.WindowManager
import android.widget.Button
import android.widget.TextView
import androidx.activity.ComponentActivity
import androidx.activity.result.contract.ActivityResultContracts
import androidx.camera.view.PreviewView
import dev.mobilebilayer.core.Facing
import dev.mobilebilayer.core.FramePacer
import dev.mobilebilayer.core.MobileBilayerError
import java.io.File

/** The camera's face drives an avatar. What runs belongs to the session; this shows it, and starts and stops it with the screen. */
class LiveActivity : ComponentActivity() {
    private lateinit var view: CompositorView
    private lateinit var message: TextView
    private lateinit var figures: TextView
    private lateinit var record: Button
    private lateinit var camera: CameraSource
    private val main = Handler(Looper.getMainLooper())
    private var session: LiveSession? = null
    private var started = false
    private var starts = 0
    private var recorder: Recorder? = null
    private var asked = false // once a screen is enough
    private var rotation = Surface.ROTATION_0
    private var shownFrames = 0
    private var begunNs = 0L

    /** Whether the avatar is there; for tests. */
    val isLive: Boolean get() = session != null

    private val permission = registerForActivityResult(ActivityResultContracts.RequestPermission()) { allowed ->
        if (allowed) openCamera(Facing.FRONT) else refused()
    }

    private val turned = object : DisplayManager.DisplayListener {
        override fun onDisplayChanged(displayId: Int) {
            if (displayId != Display.DEFAULT_DISPLAY || displayRotation() == rotation) return
            rotation = displayRotation()
            camera.turn(rotation)
            session?.pipeline?.restart() // the upright picture is another one now
        }

        override fun onDisplayAdded(displayId: Int) = Unit

        override fun onDisplayRemoved(displayId: Int) = Unit
    }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        setContentView(R.layout.live)
        view = findViewById(R.id.compositor) as CompositorView
        message = findViewById(R.id.message) as TextView
        figures = findViewById(R.id.figures) as TextView
        record = findViewById(R.id.record) as Button
        view.onError = ::tell
        val small = PreviewView(this)
        small.implementationMode = PreviewView.ImplementationMode.COMPATIBLE // which of two SurfaceViews is above is not defined
        (findViewById(R.id.camera_view) as ViewGroup).addView(small)
        camera = CameraSource(this, small, ::tell)
        record.setOnClickListener { if (recorder != null) stopRecording() else startRecording() }
        (findViewById(R.id.avatars) as View).setOnClickListener { startActivity(Intent(this, AvatarsActivity::class.java)) }
        (findViewById(R.id.benchmark) as View).setOnClickListener { startActivity(Intent(this, BenchmarkActivity::class.java)) }
        (findViewById(R.id.other_camera) as View).setOnClickListener { otherCamera() }
        figures.setOnClickListener { session?.let { tellWhatRuns(it) } }
        displays().registerDisplayListener(turned, main)
        rotation = displayRotation()
    }

    override fun onStart() {
        super.onStart()
        started = true
        if (!asked || mayUseCamera()) askForCamera()
        val start = ++starts
        message.setText(R.string.loading)
        val name = Avatars.current(this)
        work(
            act = { LiveSession(applicationContext, Avatars.load(this, name), view::requestRender, ::tell) },
            then = { made -> if (started && start == starts) begin(made) else release(made) },
            failed = { message.text = "" },
        )
    }

    private fun begin(made: LiveSession) {
        session = made
        camera.session = made
        view.show(made, camera.facing == Facing.FRONT)
        record.isEnabled = true
        shownFrames = 0
        begunNs = System.nanoTime()
        every.run()
    }

    override fun onResume() {
        super.onResume()
        view.onResume()
        session?.pipeline?.resume()
    }

    override fun onPause() {
        stopRecording()
        session?.pipeline?.pause()
        view.onPause()
        super.onPause()
    }

    override fun onStop() {
        started = false
        main.removeCallbacks(every)
        record.isEnabled = false
        camera.session = null
        view.show(null, false)
        session?.let(::release)
        session = null
        super.onStop()
    }

    override fun onDestroy() {
        displays().unregisterDisplayListener(turned)
        camera.close()
        super.onDestroy()
    }

    /** Closing waits for what runs: not here. */
    private fun release(made: LiveSession) = Models.worker.execute { made.close() }

    /** Twice a second: what the session says. */
    private val every = object : Runnable {
        override fun run() {
            val session = session ?: return
            session.pacer.heat = Heat.now(this@LiveActivity)
            val most = FramePacer.mostFps(session.pacer.heat)
            message.text = when {
                !mayUseCamera() -> getString(R.string.camera_refused)
                System.nanoTime() - maxOf(session.latestFrameNs, begunNs) > SILENT_NS -> getString(R.string.camera_silent)
                most != null -> getString(R.string.hot, FramePacer.name(session.pacer.heat), most)
                session.frames == 0 -> getString(R.string.look_here)
                session.lost -> getString(R.string.face_lost)
                else -> ""
            }
            val fps = (session.frames - shownFrames) * 1000.0 / EVERY_MS
            shownFrames = session.frames
            figures.text = getString(
                R.string.figures, fps, session.camera.recentMs, session.landmarks.recentMs, session.network.recentMs,
                session.composite.recentMs, session.whole.recentMs,
            )
            main.postDelayed(this, EVERY_MS)
        }
    }

    private fun mayUseCamera() = checkSelfPermission(Manifest.permission.CAMERA) == PackageManager.PERMISSION_GRANTED

    /** Open the camera; where that is not allowed yet, say why it is needed, then ask. */
    private fun askForCamera() {
        asked = true
        if (mayUseCamera()) {
            if (!camera.isOpen) openCamera(Facing.FRONT)
            return
        }
        AlertDialog.Builder(this)
            .setTitle(R.string.camera_needed_title)
            .setMessage(R.string.camera_needed)
            .setPositiveButton(R.string.go_on) { _, _ -> permission.launch(Manifest.permission.CAMERA) }
            .setNegativeButton(R.string.not_now, null)
            .show()
    }

    private fun refused() {
        AlertDialog.Builder(this)
            .setTitle(R.string.camera_needed_title)
            .setMessage(R.string.camera_refused)
            .setPositiveButton(R.string.open_settings) { _, _ ->
                startActivity(Intent(Settings.ACTION_APPLICATION_DETAILS_SETTINGS, Uri.fromParts("package", packageName, null)))
            }
            .setNegativeButton(R.string.not_now, null)
            .show()
    }

    private fun openCamera(facing: Facing) {
        camera.open(facing, displayRotation()) { opened ->
            view.show(session, opened == Facing.FRONT)
            session?.pipeline?.restart() // another picture, perhaps another person
        }
    }

    /** Which bundle, and why no better one. */
    private fun tellWhatRuns(session: LiveSession) {
        val manifest = session.avatar.bundle.manifest
        val notes = Models.choice(this).notes.joinToString("\n\n")
        AlertDialog.Builder(this)
            .setTitle(manifest.name)
            .setMessage(getString(R.string.what_runs, manifest.backend, EXECUTORCH, Models.threads, notes))
            .setPositiveButton(android.R.string.ok, null)
            .show()
    }

    private fun otherCamera() {
        if (!mayUseCamera()) return askForCamera()
        val other = if (camera.facing == Facing.FRONT) Facing.BACK else Facing.FRONT
        if (camera.has(other)) openCamera(other) else message.setText(R.string.no_other_camera)
    }

    private fun startRecording() {
        val file = File(cacheDir, "shared/${Avatars.current(this)}.mp4").also { it.parentFile?.mkdirs() }
        lateinit var made: Recorder
        made = try {
            Recorder(
                file,
                onDone = { video ->
                    runOnUiThread {
                        stopRecording(made)
                        if (video != null) share(video, "video/mp4", R.string.share_video)
                    }
                    if (video == null) tell(MobileBilayerError(getString(R.string.nothing_recorded)))
                },
                onError = { error ->
                    runOnUiThread { stopRecording(made) }
                    tell(recordingFailed(error))
                },
            )
        } catch (error: Exception) {
            return tell(recordingFailed(error))
        }
        recorder = made
        record.setText(R.string.stop_recording)
        view.record(made)
    }

    /** Stop [which], if it is the one that records: it may have ended by itself. */
    private fun stopRecording(which: Recorder? = recorder) {
        if (which == null || which !== recorder) return
        recorder = null
        record.setText(R.string.record)
        view.record(null)
    }

    private fun recordingFailed(error: Exception) =
        MobileBilayerError(getString(R.string.recording_failed, error.message), error)

    private fun displays() = getSystemService(Context.DISPLAY_SERVICE) as DisplayManager

    private fun displayRotation(): Int = displays().getDisplay(Display.DEFAULT_DISPLAY)?.rotation ?: Surface.ROTATION_0

    private companion object {
        const val EVERY_MS = 500L
        const val SILENT_NS = 3_000_000_000L
    }
}
