// Draws one frame by App/Shaders/composite.metal on a processor, as Metal would: three vertices, and each pixel between them.
#include "composite.metal"

// textures: avatar, background, layersA, layersB, four floats a pixel, sides[i] pixels a side; out: four bytes a pixel, upper row first.
extern "C" void draw(const float *const *textures, const int *sides, uint mirrored, int side, unsigned char *out) {
    Display display{mirrored};
    composite_vert_out corner[3];
    for (uint i = 0; i < 3; i++) corner[i] = composite_vert(display, i);
    texture2d<float> given[4];
    for (int i = 0; i < 4; i++) given[i] = {textures[i], sides[i]};
    float4 a = corner[0].gl_Position, b = corner[1].gl_Position, c = corner[2].gl_Position;
    float area = (b.x - a.x) * (c.y - a.y) - (c.x - a.x) * (b.y - a.y);
    for (int row = 0; row < side; row++) {
        for (int column = 0; column < side; column++) {
            float x = 2 * (column + 0.5f) / side - 1, y = 1 - 2 * (row + 0.5f) / side;  // clip space: its y goes up
            float ofB = ((x - a.x) * (c.y - a.y) - (c.x - a.x) * (y - a.y)) / area;
            float ofC = ((b.x - a.x) * (y - a.y) - (x - a.x) * (b.y - a.y)) / area;
            float2 place = corner[0].place * (1 - ofB - ofC) + corner[1].place * ofB + corner[2].place * ofC;
            sampler s;
            float4 colour = composite_frag({place}, given[0], given[1], given[2], given[3], s, s, s, s).colour;
            unsigned char *pixel = out + 4 * (row * side + column);
            const float of[4] = {colour.x, colour.y, colour.z, colour.w};
            for (int i = 0; i < 4; i++) pixel[i] = (unsigned char)std::lround(std::min(std::max(of[i], 0.0f), 1.0f) * 255);
        }
    }
}
