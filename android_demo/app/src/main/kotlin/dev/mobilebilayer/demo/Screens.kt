package dev.mobilebilayer.demo

import android.app.Activity
import android.app.AlertDialog
import android.content.Intent
import android.util.Log
import androidx.core.content.FileProvider
import dev.mobilebilayer.core.MobileBilayerError
import java.io.File

// What all screens do alike.

/** From any thread: tell of [error], in its own words if it is for people. */
fun Activity.tell(error: Exception) = runOnUiThread {
    Log.w("mobile_bilayer", error)
    if (isFinishing || isDestroyed || isTold()) return@runOnUiThread // what fails may fail with every frame
    val words = if (error is MobileBilayerError) error.message else getString(R.string.unexpected, error.toString())
    val dialog = AlertDialog.Builder(this)
        .setTitle(R.string.error_title)
        .setMessage(words)
        .setPositiveButton(android.R.string.ok, null)
        .setOnDismissListener { told = null }
        .create()
    dialog.setOwnerActivity(this)
    dialog.show()
    told = dialog
}

private var told: AlertDialog? = null

/** A dialog whose screen was destroyed is gone, and was never dismissed. */
private fun isTold() = told?.let { it.isShowing && it.ownerActivity?.isDestroyed == false } ?: false

/** On the worker's thread, errors told; [then] on the main thread with what came of it, even if the screen is gone by then. */
fun <T> Activity.work(act: () -> T, then: (T) -> Unit, failed: () -> Unit = {}) = Models.worker.execute {
    try {
        val result = act()
        runOnUiThread { then(result) }
    } catch (error: Exception) {
        runOnUiThread(failed)
        tell(error)
    }
}

/** Let people choose an app to give [file] to; it must lie where res/xml/shared_files.xml says. */
fun Activity.share(file: File, type: String, title: Int) {
    val intent = Intent(Intent.ACTION_SEND)
        .setType(type)
        .putExtra(Intent.EXTRA_STREAM, FileProvider.getUriForFile(this, "$packageName.files", file))
        .addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION)
    startActivity(Intent.createChooser(intent, getString(title)))
}
