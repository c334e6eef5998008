// Stands for androidx.camera:camera-lifecycle:1.5.3: no more of it than the app uses.
package androidx.camera.lifecycle;

import android.content.Context;
import androidx.camera.core.Camera;
import androidx.camera.core.CameraInfoUnavailableException;
import androidx.camera.core.CameraSelector;
import androidx.camera.core.UseCase;
import androidx.lifecycle.LifecycleOwner;
import com.google.common.util.concurrent.ListenableFuture;

public final class ProcessCameraProvider {
    public static ListenableFuture<ProcessCameraProvider> getInstance(Context context) { throw new RuntimeException(); }

    public Camera bindToLifecycle(LifecycleOwner lifecycleOwner, CameraSelector cameraSelector, UseCase... useCases) { throw new RuntimeException(); }

    public void unbindAll() { throw new RuntimeException(); }

    public boolean hasCamera(CameraSelector cameraSelector) throws CameraInfoUnavailableException { throw new RuntimeException(); }
}
