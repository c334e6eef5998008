// Stands for androidx.camera:camera-view:1.5.3: no more of it than the app uses.
package androidx.camera.view;

import android.content.Context;
import android.widget.FrameLayout;
import androidx.camera.core.Preview;

public final class PreviewView extends FrameLayout {
    public PreviewView(Context context) { super(context); }

    public Preview.SurfaceProvider getSurfaceProvider() { throw new RuntimeException(); }

    public ImplementationMode getImplementationMode() { throw new RuntimeException(); }

    public void setImplementationMode(ImplementationMode implementationMode) { throw new RuntimeException(); }

    public enum ImplementationMode { PERFORMANCE, COMPATIBLE }
}
