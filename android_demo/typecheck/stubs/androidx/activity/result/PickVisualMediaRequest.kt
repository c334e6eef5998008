// Stands for androidx.activity:activity:1.12.4: no more of it than the app uses. In Kotlin, as the real one is.
package androidx.activity.result

import androidx.activity.result.contract.ActivityResultContracts

class PickVisualMediaRequest internal constructor() {
    class Builder {
        fun setMediaType(mediaType: ActivityResultContracts.PickVisualMedia.VisualMediaType): Builder = throw RuntimeException("$mediaType")

        fun build(): PickVisualMediaRequest = throw RuntimeException()
    }
}
