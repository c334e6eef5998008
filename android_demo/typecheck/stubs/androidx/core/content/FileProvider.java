// Stands for androidx.core:core:1.17.0: no more of it than the app uses.
package androidx.core.content;

import android.content.ContentProvider;
import android.content.ContentValues;
import android.content.Context;
import android.database.Cursor;
import android.net.Uri;
import java.io.File;

public class FileProvider extends ContentProvider {
    public static Uri getUriForFile(Context context, String authority, File file) { throw new RuntimeException(); }

    @Override public boolean onCreate() { throw new RuntimeException(); }

    @Override public Cursor query(Uri uri, String[] columns, String where, String[] values, String order) { throw new RuntimeException(); }

    @Override public String getType(Uri uri) { throw new RuntimeException(); }

    @Override public Uri insert(Uri uri, ContentValues values) { throw new RuntimeException(); }

    @Override public int delete(Uri uri, String where, String[] values) { throw new RuntimeException(); }

    @Override public int update(Uri uri, ContentValues values, String where, String[] given) { throw new RuntimeException(); }
}
