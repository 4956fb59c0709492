#include <gtest/gtest.h>

#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <random>

#include "base/memory_budget.h"
#include "device/cpu/vision/image_header.h"
#include "device/cpu/vision/vision_tester.h"

namespace plexus::vision {
namespace {

Tensor FileOf(std::string bytes) { return Tensor::FromStrings({1}, {std::move(bytes)}); }

// `rgb` as OpenCV writes it, which is what we do not test.
std::string Encoded(const Tensor& rgb, const std::string& extension,
                    const std::vector<int>& options = {}) {
  const int h = static_cast<int>(rgb.shape()[0]), w = static_cast<int>(rgb.shape()[1]);
  cv::Mat bgr(h, w, CV_8UC3);
  for (int y = 0; y < h; ++y) {
    for (int x = 0; x < w; ++x) {
      for (int k = 0; k < 3; ++k) {
        bgr.at<cv::Vec3b>(y, x)[k] = static_cast<uchar>(PixelAt(rgb, y, x, 2 - k));
      }
    }
  }
  std::vector<uchar> bytes;
  EXPECT_TRUE(cv::imencode(extension, bgr, bytes, options));
  return std::string(bytes.begin(), bytes.end());
}

Tensor Picture(int64_t h = 6, int64_t w = 9) {
  return ImageOf(h, w, 3, [](int64_t y, int64_t x, int64_t k) { return 20 * y + 7 * x + 60 * k; });
}

TEST(DecodeImageTest, PngGivesThePixelsInTheOrderAskedFor) {
  const Tensor picture = Picture();
  const std::string file = Encoded(picture, ".png");
  const Result<Tensor> rgb = VisionOp("DecodeImage").Run1({FileOf(file)});
  ASSERT_TRUE(rgb.ok()) << rgb.status().ToString();
  EXPECT_TRUE(TensorsEqual(*rgb, picture)) << TensorToString(*rgb);
  const Result<Tensor> bgr = VisionOp("DecodeImage").Set("order", "bgr").Run1({FileOf(file)});
  ASSERT_TRUE(bgr.ok());
  EXPECT_EQ(PixelAt(*bgr, 2, 3, 0), PixelAt(picture, 2, 3, 2));
  EXPECT_EQ(PixelAt(*bgr, 2, 3, 2), PixelAt(picture, 2, 3, 0));
}

TEST(DecodeImageTest, JpegIsCloseToWhatWasWritten) {
  const Tensor picture =
      ImageOf(32, 48, 3, [](int64_t y, int64_t x, int64_t k) { return 2 * y + 3 * x + 10 * k; });
  const Result<Tensor> rgb =
      VisionOp("DecodeImage")
          .Run1({FileOf(Encoded(picture, ".jpg", {cv::IMWRITE_JPEG_QUALITY, 95}))});
  ASSERT_TRUE(rgb.ok()) << rgb.status().ToString();
  ASSERT_EQ(rgb->shape(), picture.shape());
  double sum = 0;
  for (int64_t i = 0; i < picture.num_elements(); ++i) {
    sum += std::abs(picture.data<uint8_t>()[i] - rgb->data<uint8_t>()[i]);
  }
  EXPECT_LT(sum / static_cast<double>(picture.num_elements()), 3.0);
}

// A JPEG's APP1 segment with one tag: orientation 6, "turn clockwise".
constexpr std::string_view kTurned(
    "\xff\xe1\x00\x22"
    "Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
    36);

TEST(DecodeImageTest, TheOrientationTagOfAJpegIsObeyed) {
  const Tensor picture =
      ImageOf(16, 32, 3, [](int64_t, int64_t x, int64_t) { return x < 16 ? 0 : 255; });
  std::string file = Encoded(picture, ".jpg");
  file.insert(2, kTurned);
  const Result<Tensor> turned = VisionOp("DecodeImage").Run1({FileOf(file)});
  ASSERT_TRUE(turned.ok()) << turned.status().ToString();
  ASSERT_EQ(turned->shape(), (Shape{32, 16, 3}));
  EXPECT_LT(PixelAt(*turned, 4, 8), 20);
  EXPECT_GT(PixelAt(*turned, 28, 8), 235);
}

TEST(DecodeImageTest, ABlackImageIsAnImage) {
  const Tensor black = ImageOf(8, 8, 3, [](int64_t, int64_t, int64_t) { return 0; });
  for (const char* extension : {".png", ".jpg"}) {
    const Result<Tensor> image = VisionOp("DecodeImage").Run1({FileOf(Encoded(black, extension))});
    ASSERT_TRUE(image.ok()) << image.status().ToString();
    EXPECT_TRUE(TensorsEqual(*image, black)) << extension;
  }
}

TEST(DecodeImageTest, LimitsAreCheckedBeforeAnythingIsDecoded) {
  std::string huge = Encoded(Picture(), ".png");
  huge.replace(16, 8, std::string("\0\0\x7f\xff\0\0\x7f\xff", 8));  // 32767 x 32767
  EXPECT_NE(VisionOp("DecodeImage").Error({FileOf(huge)}).find("32767 x 32767 pixels"),
            std::string::npos);
  EXPECT_NE(VisionOp("DecodeImage")
                .Set("max_pixels", 1 << 30)
                .Error({FileOf(huge)})
                .find("claims more pixels"),
            std::string::npos);
  const std::string small = Encoded(Picture(), ".png");
  EXPECT_NE(VisionOp("DecodeImage").Set("max_pixels", 53).Error({FileOf(small)}).find("at most 53"),
            std::string::npos);
  EXPECT_EQ(VisionOp("DecodeImage").Set("max_pixels", 54).Error({FileOf(small)}), "");
  EXPECT_NE(VisionOp("DecodeImage").Set("max_bytes", 20).Error({FileOf(small)}).find("at most 20"),
            std::string::npos);
}

TEST(DecodeImageTest, ThePixelsAreChargedToTheRequest) {
  const Tensor file = FileOf(Encoded(Picture(100, 100), ".png"));
  auto budget = std::make_shared<MemoryBudget>("the request", 50'000);
  HostScope scope(budget);
  const Result<Tensor> image = VisionOp("DecodeImage").Run1({file});
  ASSERT_FALSE(image.ok());
  EXPECT_EQ(image.status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(budget->used_bytes(), 0u);
}

TEST(DecodeImageTest, OtherFilesAreRefused) {
  for (const char* text : {"", "x", "GIF89a..........................", "II*\0", "RIFF....WEBP"}) {
    EXPECT_NE(VisionOp("DecodeImage").Error({FileOf(text)}).find("neither a PNG nor a JPEG"),
              std::string::npos);
  }
  EXPECT_NE(VisionOp("DecodeImage").Error({Picture()}).find("needs one file"), std::string::npos);
  EXPECT_NE(VisionOp("DecodeImage").Set("order", "yuv").Error({FileOf("x")}).find("'order'"),
            std::string::npos);
}

TEST(DecodeImageTest, AJpegOfEndlessScansIsRefused) {
  const std::string file = Encoded(Picture(24, 24), ".jpg", {cv::IMWRITE_JPEG_PROGRESSIVE, 1});
  const size_t last = file.rfind("\xff\xda");
  ASSERT_NE(last, std::string::npos);
  const std::string scan = file.substr(last, file.size() - 2 - last);
  // A comment may hold what looks like the end.
  std::string more = file.substr(0, file.size() - 2) + std::string("\xff\xfe\0\4\xff\xd9", 6);
  std::string many = more;
  for (int i = 0; i < 5; ++i) more += scan;
  for (int i = 0; i < 64; ++i) many += scan;
  EXPECT_TRUE(ReadImageHeader(more + "\xff\xd9").ok());
  EXPECT_NE(VisionOp("DecodeImage").Error({FileOf(many + "\xff\xd9")}).find("more than 64 scans"),
            std::string::npos);
  EXPECT_FALSE(ReadImageHeader(more).ok()) << "without an end";
  EXPECT_FALSE(ReadImageHeader(more + "\xff").ok());
}

TEST(DecodeImageTest, EveryTruncationIsAnError) {
  for (const char* extension : {".png", ".jpg"}) {
    const std::string file = Encoded(Picture(24, 24), extension);
    // A PNG's last 12 bytes say only that it has ended.
    const size_t needed = extension == std::string(".png") ? file.size() - 12 : file.size();
    for (size_t size = 0; size < needed; ++size) {
      EXPECT_NE(VisionOp("DecodeImage").Error({FileOf(file.substr(0, size))}), "")
          << extension << " of " << size << " bytes";
    }
  }
}

TEST(DecodeImageTest, CorruptedFilesGiveAnErrorOrAnImageOfTheirSize) {
  constexpr uint32_t kSeed = 20240611;
  std::mt19937 random(kSeed);
  std::vector<std::string> files;
  for (const char* extension : {".png", ".jpg"})
    files.push_back(Encoded(Picture(24, 40), extension));
  files.push_back(Encoded(Picture(24, 40), ".jpg", {cv::IMWRITE_JPEG_PROGRESSIVE, 1}));
  int decoded = 0;
  for (int round = 0; round < 600; ++round) {
    std::string file = files[round % files.size()];
    const size_t flips = 1 + random() % 8;
    for (size_t i = 0; i < flips; ++i) {
      // Half of them in the header, where they do most.
      const size_t range = random() % 2 == 0 ? std::min<size_t>(file.size(), 64) : file.size();
      file[random() % range] = static_cast<char>(random());
    }
    if (random() % 4 == 0) file.resize(random() % file.size());
    const Result<ImageHeader> header = ReadImageHeader(file);
    const Result<Tensor> image =
        VisionOp("DecodeImage").Set("max_pixels", 100'000).Run1({FileOf(file)});
    if (!image.ok()) {
      EXPECT_EQ(image.status().code(), StatusCode::kInvalidArgument)
          << "seed " << kSeed << " round " << round << ": " << image.status().ToString();
      continue;
    }
    ++decoded;
    ASSERT_TRUE(header.ok());
    EXPECT_EQ(image->num_elements(), header->width * header->height * 3)
        << "seed " << kSeed << " round " << round;
  }
  EXPECT_GT(decoded, 0);
}

TEST(DecodeImageTest, OpenCvStartsNoThreads) {
  ASSERT_EQ(VisionOp("DecodeImage").Error({FileOf(Encoded(Picture(), ".png"))}), "");
  EXPECT_EQ(cv::getNumThreads(), 1);
}

}  // namespace
}  // namespace plexus::vision
