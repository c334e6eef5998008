// Both here, so that core and the app are compiled by one Kotlin: the Android plugin would bring an older one.
plugins {
    alias(libs.plugins.android.application) apply false
    alias(libs.plugins.kotlin.jvm) apply false
}
