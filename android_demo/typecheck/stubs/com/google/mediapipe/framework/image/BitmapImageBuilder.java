// Stands for com.google.mediapipe:tasks-core:0.10.35: no more of it than the app uses.
package com.google.mediapipe.framework.image;

import android.graphics.Bitmap;

public class BitmapImageBuilder {
    public BitmapImageBuilder(Bitmap bitmap) { }

    public MPImage build() { throw new RuntimeException(); }
}
