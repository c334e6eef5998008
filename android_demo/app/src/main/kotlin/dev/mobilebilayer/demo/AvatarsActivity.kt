package dev.mobilebilayer.demo

import android.app.AlertDialog
import android.os.Bundle
import android.view.View
import android.widget.ArrayAdapter
import android.widget.ListView
import androidx.activity.ComponentActivity
import androidx.activity.result.PickVisualMediaRequest
import androidx.activity.result.contract.ActivityResultContracts

/** Choose who is driven: an avatar that is there, one of a photo, or an .avatar file; export, share and delete them. */
class AvatarsActivity : ComponentActivity() {
    private lateinit var list: ListView
    private lateinit var progress: View
    private var exported: String? = null

    // The system's own pickers: no permission to read all photos or files is needed.
    private val photo = registerForActivityResult(ActivityResultContracts.PickVisualMedia()) { uri ->
        if (uri != null) busy({ Avatars.make(applicationContext, uri) }) { finish() }
    }
    private val opened = registerForActivityResult(ActivityResultContracts.OpenDocument()) { uri ->
        if (uri != null) busy({ Avatars.import(applicationContext, uri) }) { finish() }
    }
    private val saved = registerForActivityResult(ActivityResultContracts.CreateDocument("application/octet-stream")) { uri ->
        val name = exported
        if (uri != null && name != null) {
            busy({ Avatars.export(applicationContext, name, uri) }) { title = getString(R.string.exported, name) }
        }
    }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        exported = savedInstanceState?.getString(EXPORTED)
        setContentView(R.layout.avatars)
        list = findViewById(R.id.list) as ListView
        progress = findViewById(R.id.progress) as View
        (findViewById(R.id.from_photo) as View).setOnClickListener {
            val images = ActivityResultContracts.PickVisualMedia.ImageOnly
            photo.launch(PickVisualMediaRequest.Builder().setMediaType(images).build())
        }
        (findViewById(R.id.import_avatar) as View).setOnClickListener { opened.launch(arrayOf("*/*")) } // .avatar has no type of its own
        list.setOnItemClickListener { _, _, place, _ -> ask(list.adapter.getItem(place) as String) }
        fill()
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putString(EXPORTED, exported)
    }

    private fun fill() {
        list.adapter = ArrayAdapter(this, android.R.layout.simple_list_item_1, Avatars.names(this))
    }

    private fun ask(name: String) {
        val choices = arrayListOf(R.string.drive, R.string.export_avatar, R.string.share_avatar)
        if (Avatars.isOwn(this, name)) choices += R.string.delete_avatar
        val words = choices.map { getString(it) }.toTypedArray<CharSequence>()
        AlertDialog.Builder(this).setTitle(name).setItems(words) { _, which -> act(name, choices[which]) }.show()
    }

    private fun act(name: String, choice: Int) {
        when (choice) {
            R.string.drive -> {
                Avatars.choose(this, name)
                finish()
            }
            R.string.export_avatar -> {
                exported = name
                saved.launch("$name.avatar")
            }
            R.string.share_avatar -> busy({ Avatars.shared(applicationContext, name) }) {
                share(it, "application/octet-stream", R.string.share_avatar)
            }
            else -> {
                Avatars.delete(this, name)
                fill()
            }
        }
    }

    private fun <T> busy(act: () -> T, then: (T) -> Unit) {
        progress.visibility = View.VISIBLE
        val done = { progress.visibility = View.INVISIBLE }
        work(
            act,
            then = { result ->
                done()
                if (!isDestroyed) then(result)
            },
            failed = done,
        )
    }

    private companion object {
        const val EXPORTED = "exported"
    }
}
