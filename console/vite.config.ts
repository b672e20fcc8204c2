import { defineConfig } from "vite";

// Everything is written to the room that embeds it. Nothing of the machine or the moment enters the
// bundle, so that the same sources make the same bytes.
export default defineConfig({
  base: "/console/",
  build: {
    outDir: process.env["CONSOLE_OUT"] ?? "../pkg/console/dist",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    sourcemap: false,
    reportCompressedSize: false,
    chunkSizeWarningLimit: 600,
    license: { fileName: "licenses.txt" },
  },
});
