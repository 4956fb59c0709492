#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "device/cpu/vision/vision_ops.h"
#include "pipeline/pipeline_file.h"
#include "program/reference/reference.h"

namespace plexus {
namespace {

class ImageGlueTest : public ::testing::Test {
 protected:
  ImageGlueTest() {
    RegisterVisionOps();
    char name[] = "/tmp/plexus-images-XXXXXX";
    folder_ = mkdtemp(name);
    std::ofstream(folder_ / "keys.txt") << "0\n1\na\n\xc3\xa9\n";
  }
  ~ImageGlueTest() override { std::filesystem::remove_all(folder_); }

  // A pipeline from `image` (UINT8), `numbers` (FP32) and `file` (BYTES) to the stage `last`.
  Result<PipelineFile> Parse(const std::string& stages, const std::string& output = "last") {
    const ModelLookup none = [](const std::string& model) {
      return NotFoundError("model '" + model + "'");
    };
    return ParsePipeline(
        "name: p\n"
        "inputs:\n"
        "  - {name: image, dtype: UINT8, shape: [-1, -1, 3]}\n"
        "  - {name: numbers, dtype: FP32, shape: [-1, -1]}\n"
        "  - {name: file, dtype: BYTES, shape: [1]}\n"
        "stages:\n" +
            stages + "\noutputs:\n  - {name: out, from: " + output + "}\n",
        "p.yaml", folder_, none);
  }

  // What the pipeline makes of the image; the other inputs are empty.
  Result<Tensor> Run(const std::string& stages, const Tensor& image) {
    PLEXUS_ASSIGN_OR_RETURN(const PipelineFile parsed, Parse(stages));
    const std::vector<Tensor> inputs = {image, Tensor::Of<float>(DType::kFloat32, {0, 0}, {}),
                                        Tensor::FromStrings({1}, {""})};
    PLEXUS_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, RunGraph(*parsed.graph, inputs));
    return outputs[0];
  }

  std::filesystem::path folder_;
};

// uint8[2,2,3] with 0 to 11.
Tensor Picture() {
  return Tensor::Of<uint8_t>(DType::kUint8, {2, 2, 3}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
}

TEST_F(ImageGlueTest, NormalizeGivesPlanesWithMeanAndDeviationPerChannel) {
  const Result<Tensor> y = Run(
      "  - {name: last, op: normalize, input: image, mean: [0.5, 0.25, 0], std: [0.5, 0.25, 2]}",
      Picture());
  ASSERT_TRUE(y.ok()) << y.status().ToString();
  ASSERT_EQ(y->shape(), (Shape{1, 3, 2, 2}));
  const double mean[] = {0.5, 0.25, 0}, deviation[] = {0.5, 0.25, 2};
  for (int channel = 0; channel < 3; ++channel) {
    for (int pixel = 0; pixel < 4; ++pixel) {
      EXPECT_NEAR(y->data<float>()[4 * channel + pixel],
                  ((3 * pixel + channel) / 255.0 - mean[channel]) / deviation[channel], 1e-6);
    }
  }
}

TEST_F(ImageGlueTest, Rotate180PutsTheLastPixelFirstAndKeepsItsColour) {
  const Result<Tensor> y = Run("  - {name: last, op: rotate180, input: image}", Picture());
  ASSERT_TRUE(y.ok()) << y.status().ToString();
  EXPECT_TRUE(TensorsEqual(
      *y, Tensor::Of<uint8_t>(DType::kUint8, {2, 2, 3}, {9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2})))
      << TensorToString(*y, 12);
}

TEST_F(ImageGlueTest, ResizeAndPerspectiveCropRunAsStages) {
  const Result<Tensor> y =
      Run("  - {name: box, op: reshape, input: numbers, shape: [-1]}\n"
          "  - {name: last, op: resize, input: image, size: [4, 6], to: FP32, pad_value: 0.5}",
          Picture());
  ASSERT_TRUE(y.ok()) << y.status().ToString();
  EXPECT_EQ(y->shape(), (Shape{4, 6, 3}));
  EXPECT_EQ(y->dtype(), DType::kFloat32);
}

TEST_F(ImageGlueTest, CtcTextReadsItsLabelsAndTheSpaceAfterThem) {
  const Result<PipelineFile> parsed = Parse(
      "  - {name: last, op: ctc_text, input: numbers, labels: keys.txt, space: true, allow: "
      "\"1\xc3\xa9 \"}",
      "last.text");
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  const Node& node = parsed->graph->nodes()[0];
  EXPECT_EQ(std::get<std::vector<std::string>>(node.attributes.at("labels")),
            (std::vector<std::string>{"0", "1", "a", "\xc3\xa9", " "}));
  EXPECT_EQ(node.IntsAttr("classes"), (std::vector<int64_t>{2, 4, 5}));
}

struct BadCase {
  const char* stage;
  const char* expected;  // part of the message
};

TEST_F(ImageGlueTest, BadOptionsAreRejectedWithTheStageAndTheReason) {
  const BadCase cases[] = {
      {"op: decode_image, input: image", "expects BYTES, its input is UINT8"},
      {"op: decode_image, input: file, order: cmyk", "expected rgb or bgr"},
      {"op: decode_image, input: file, max_pixels: 0", "'max_pixels': at least 1"},
      {"op: resize, input: image", "expects 'size', or"},
      {"op: resize, input: image, size: [4, 4], max_side: 8", "expects 'size', or"},
      {"op: resize, input: image, size: [4]", "expected [height, width]"},
      {"op: resize, input: image, widths: [8, 4], height: 4", "expected ascending widths"},
      {"op: resize, input: image, widths: [8]", "key 'height' is missing"},
      {"op: resize, input: image, max_side: 8, pad_value: 3", "unknown key 'pad_value'"},
      {"op: resize, input: image, size: [4, 4], to: INT8", "expected UINT8 or FP32"},
      {"op: resize, input: numbers, size: [4, 4]", "expects UINT8, its input is FP32"},
      {"op: normalize, input: image, std: 0", "must be above 0"},
      {"op: normalize, input: image, mean: [1, 2]", "one for each of three channels"},
      {"op: normalize, input: file", "expects UINT8, its input is BYTES"},
      {"op: normalize, input: image, mean: [.nan, 0, 0]", "'mean': expected finite"},
      {"op: normalize, input: image, mean: [a, b, c]", "'mean': expected finite"},
      {"op: normalize, input: image, std: [1, 1e300, 1]", "'std': expected finite"},
      {"op: resize, input: image, size: [4, 32768]", "from 1 to 32767"},
      {"op: resize, input: image, widths: [8, 9223372036854775807], height: 4", "to 32767"},
      {"op: resize, input: image, widths: [8], height: 40000", "'height': from 1 to 32767"},
      {"op: resize, input: image, size: [4, 4], pad_value: 1e300", "'pad_value': at most"},
      {"op: db_boxes, inputs: [numbers, image], threshold: .nan", "'threshold': expected a finite"},
      {"op: db_boxes, inputs: [numbers, image], threshold: -0.1", "'threshold': at least 0"},
      {"op: db_boxes, inputs: [numbers, image], box_threshold: 1.5", "'box_threshold': at most 1"},
      {"op: db_boxes, inputs: [numbers, image], unclip: -5", "'unclip': at least 0"},
      {"op: db_boxes, inputs: [numbers, image], unclip: 1e30", "'unclip': at most 100"},
      {"op: perspective_crop, inputs: [image, numbers], rotate_tall: -1",
       "'rotate_tall': at least"},
      {"op: db_boxes, input: numbers", "takes 'inputs', a list of 2"},
      {"op: db_boxes, inputs: [image, numbers]", "expects FP32, its input is UINT8"},
      {"op: perspective_crop, inputs: [image, image]", "expects FP32, its input is UINT8"},
      {"op: ctc_text, input: numbers", "key 'labels' is missing"},
      {"op: ctc_text, input: numbers, labels: ../keys.txt", "a file beside the pipeline"},
      {"op: ctc_text, input: numbers, labels: keys.txt, allow: xyz", "'x' is not among the labels"},
      {"op: ctc_text, input: numbers, labels: keys.txt, blank: 5", "key 'blank'"},
  };
  for (const BadCase& bad : cases) {
    const Result<PipelineFile> parsed =
        Parse("  - {name: last, " + std::string(bad.stage) + "}", "last");
    ASSERT_FALSE(parsed.ok()) << bad.stage;
    EXPECT_EQ(parsed.status().code(), StatusCode::kInvalidArgument) << bad.stage;
    EXPECT_NE(parsed.status().message().find("stage 'last'"), std::string::npos)
        << parsed.status().message();
    EXPECT_NE(parsed.status().message().find(bad.expected), std::string::npos)
        << parsed.status().message();
  }
}

}  // namespace
}  // namespace plexus
