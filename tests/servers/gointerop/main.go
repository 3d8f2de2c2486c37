// Command gointerop passes a file through Go's own codecs: gointerop FILE gzip|zlib|lzw|none [-c].
// It decompresses FILE to stdout, with -c it compresses.
package main

import (
	"compress/gzip"
	"compress/lzw"
	"compress/zlib"
	"fmt"
	"io"
	"os"
)

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func reader(file io.Reader, codec string) (io.Reader, error) {
	switch codec {
	case "gzip":
		return gzip.NewReader(file)
	case "zlib":
		return zlib.NewReader(file)
	case "lzw":
		return lzw.NewReader(file, lzw.LSB, 8), nil
	case "none":
		return file, nil
	}
	return nil, fmt.Errorf("unknown codec %q", codec)
}

func writer(out io.Writer, codec string) (io.WriteCloser, error) {
	switch codec {
	case "gzip":
		return gzip.NewWriter(out), nil
	case "zlib":
		return zlib.NewWriter(out), nil
	case "lzw":
		return lzw.NewWriter(out, lzw.LSB, 8), nil
	case "none":
		return nopCloser{out}, nil
	}
	return nil, fmt.Errorf("unknown codec %q", codec)
}

func run(args []string) error {
	compress := len(args) == 3 && args[2] == "-c"
	if len(args) != 2 && !compress {
		return fmt.Errorf("usage: gointerop FILE gzip|zlib|lzw|none [-c]")
	}
	file, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer file.Close()
	if compress {
		encoded, err := writer(os.Stdout, args[1])
		if err != nil {
			return err
		}
		if _, err := io.Copy(encoded, file); err != nil {
			return err
		}
		return encoded.Close()
	}
	decoded, err := reader(file, args[1])
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, decoded)
	return err
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gointerop:", err)
		os.Exit(1)
	}
}
