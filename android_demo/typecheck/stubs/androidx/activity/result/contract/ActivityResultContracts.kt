// Stands for androidx.activity:activity:1.12.4: no more of it than the app uses. In Kotlin, as the real ones are.
package androidx.activity.result.contract

import android.net.Uri
import androidx.activity.result.PickVisualMediaRequest

abstract class ActivityResultContract<I, O>

class ActivityResultContracts private constructor() {
    class RequestPermission : ActivityResultContract<String, Boolean>()

    open class OpenDocument : ActivityResultContract<Array<String>, Uri?>()

    open class CreateDocument(@Suppress("unused") private val mimeType: String) : ActivityResultContract<String, Uri?>()

    open class PickVisualMedia : ActivityResultContract<PickVisualMediaRequest, Uri?>() {
        sealed interface VisualMediaType

        object ImageOnly : VisualMediaType
    }
}
