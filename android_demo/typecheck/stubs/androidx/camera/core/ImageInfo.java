// Stands for androidx.camera:camera-core:1.5.3: no more of it than the app uses.
package androidx.camera.core;

public interface ImageInfo {
    long getTimestamp();

    int getRotationDegrees();
}
