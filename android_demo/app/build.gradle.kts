// The app. Not built here: see ../README.md.
import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "dev.mobilebilayer.demo"
    compileSdk = 36

    defaultConfig {
        applicationId = "dev.mobilebilayer.demo"
        minSdk = 26
        targetSdk = 36
        versionCode = 1
        versionName = "0.1.0"
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
        ndk {
            abiFilters += listOf("arm64-v8a", "x86_64") // those that ExecuTorch comes for
        }
    }

    // `-PtestBuildType=release`: the instrumented benchmark measures what users would run.
    testBuildType = providers.gradleProperty("testBuildType").orElse("debug").get()

    buildTypes {
        release {
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"), "proguard-rules.pro") // with isMinifyEnabled alone
            signingConfig = signingConfigs.getByName("debug") // a demo: measured as users would run it, published by nobody
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }

    androidResources {
        noCompress += listOf("pte", "task", "safetensors") // they hardly shrink, and are read faster so
    }

    packaging {
        jniLibs.pickFirsts += "**/libc++_shared.so" // ExecuTorch and MediaPipe may each bring it
    }
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_11
    }
}

dependencies {
    implementation(project(":core"))
    implementation(libs.activity)
    implementation(libs.camera.camera2)
    implementation(libs.camera.core)
    implementation(libs.camera.lifecycle)
    implementation(libs.camera.view)
    implementation(libs.core)
    implementation(libs.executorch)
    implementation(libs.mediapipe.vision)
    androidTestImplementation(libs.test.core)
    androidTestImplementation(libs.test.junit)
    androidTestImplementation(libs.test.runner)
}

// Without these the app has nothing to run.
val models = layout.projectDirectory.file("src/main/assets/bundles").asFile
tasks.matching { it.name == "preBuild" }.configureEach {
    doFirst {
        if (!models.isDirectory) throw GradleException("The app's assets are missing. Run `python android_demo/assets.py` first.")
    }
}

// AN4: stores refuse native libraries that are not aligned for pages of 16 KB.
val python = providers.gradleProperty("python").orElse("python3").get()
for (variant in listOf("Debug", "Release")) {
    val checkPages = tasks.register<Exec>("check${variant}Pages") {
        val apk = variant.lowercase().let { layout.buildDirectory.file("outputs/apk/$it/app-$it.apk") }
        commandLine(python, rootProject.file("check_apk.py"), apk.get().asFile)
    }
    tasks.matching { it.name == "assemble$variant" }.configureEach { finalizedBy(checkPages) }
}
